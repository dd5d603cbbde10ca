"""What a row means: every column once, filters into SQL, Arrow into typed DataFrames."""
