"""lps-prep: videos in, sharded face clips and manifests out."""
