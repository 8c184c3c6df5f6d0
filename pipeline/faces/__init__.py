"""Find faces, follow them, align them."""
