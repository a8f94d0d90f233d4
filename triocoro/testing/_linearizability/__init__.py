"""Are the operations of an application linearizable? A search for an order that explains their results."""
