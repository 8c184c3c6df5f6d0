"""Sequences of images as source videos: how they are named, ordered and digested, in folders and in archives."""
