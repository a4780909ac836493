"""The attacks of the ACIDRain study on vouchers and inventory."""
