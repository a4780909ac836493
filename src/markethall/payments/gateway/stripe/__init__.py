"""The gateway of Stripe. Only a shop that is paid through Stripe imports the SDK."""
