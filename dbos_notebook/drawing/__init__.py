"""What a person looks at: HTML made from templates that escape by default."""
