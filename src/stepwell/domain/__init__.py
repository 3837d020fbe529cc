"""The nouns of Stepwell and their rules: frozen, pure, without clock and without input or output."""
