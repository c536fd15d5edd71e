"""One file a variant. The file's name is the variant's name; the class in it is called AdamW."""
