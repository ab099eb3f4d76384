"""Floor 3: put a module at a site, and the old one back, bit for bit."""
