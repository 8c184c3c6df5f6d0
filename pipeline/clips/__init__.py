"""One video to its clips: process and encode."""
