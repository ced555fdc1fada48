"""Features of frozen timm networks, and the moments of many feature vectors."""
