"""What a collection is: schema, stored settings, description, binding, creation, search defaults."""
