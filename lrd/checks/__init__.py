"""Checks of the library against others, and measurements of its speed. Nothing else imports them."""
