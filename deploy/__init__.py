"""How the shop runs somewhere."""
