"""The attacks of the ACIDRain study, on vouchers, inventory and carts."""
