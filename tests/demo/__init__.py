"""The demo world: pictures with known truth and the small model that answers about them."""
