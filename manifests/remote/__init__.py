"""Files that are not on this machine: plain web servers, and bounded folders of local copies."""
