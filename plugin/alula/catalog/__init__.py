"""Collections: schema, stored settings, description, creation, search defaults."""
