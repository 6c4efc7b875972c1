"""Images to index maps to bytes and back: tokenizer, codebook ladder, entropy coder, inpainting."""
