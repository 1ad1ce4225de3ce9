"""Pictures of what a detector finds: displays, and the report."""
