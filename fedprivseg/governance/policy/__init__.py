"""The gate of a site, and the policy, consent and agreements that it asks."""
