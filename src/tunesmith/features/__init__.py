"""Floor 4: features of the frozen model: computed once, cached by content, and the regularisation path on them."""
