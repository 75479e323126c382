"""What a character is good for (section 4.4 of the paper): stories, local edits, poses. One small module each."""
