// What the theme's script leaves out: what scrolls is reached by keyboard everywhere, and copy buttons are no landmarks.
function mend() {
  for (const bar of document.querySelectorAll("nav.md-code__nav")) bar.setAttribute("role", "none");
  for (const box of document.querySelectorAll("pre > code, .md-typeset__scrollwrap"))
    if (box.tabIndex < 0 && box.scrollWidth > box.clientWidth) box.tabIndex = 0;
}
new MutationObserver(mend).observe(document, { childList: true, subtree: true, attributeFilter: ["tabindex"] });
addEventListener("resize", mend);
addEventListener("load", mend);
