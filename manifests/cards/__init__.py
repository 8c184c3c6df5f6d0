"""Cards of a data set, for people and for tools: README.md of the Hugging Face Hub, croissant.json of MLCommons."""
