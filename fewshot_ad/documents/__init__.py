"""YAML and JSON that users give: read within bounds, checked field by field, with errors that name file and line."""
