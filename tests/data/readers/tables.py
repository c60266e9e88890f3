"""A table of the twelve pictures in `folder`, as text and as a file."""

ROWS = "".join(f"images/{i:02}.png,number {i}\n" for i in range(12))
CSV = "image,caption\n" + ROWS


def write(folder, text, name="captions.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path
