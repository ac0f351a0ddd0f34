// NumPy files of float32 matrices (numpy.lib.format, version 1.0), little-endian like every browser's platform.

// Reads a file with a matrix: {shape: [rows, columns], data: Float32Array}.
export function readNpy(buffer) {
  const file = new Uint8Array(buffer);
  const begin = 10 + file[8] + 256 * file[9];
  const header = new TextDecoder("latin1").decode(file.subarray(0, begin));
  const [, rows, columns] = /^.NUMPY.*'descr': '<f4', 'fortran_order': False, 'shape': \((\d+), (\d+)\)/s.exec(header)?.map(Number) ?? [];
  if (buffer.byteLength !== begin + rows * columns * 4) throw new Error("The response is not a complete NumPy file with a matrix of float32");
  // The header ends at a multiple of 64 bytes.
  return { shape: [rows, columns], data: new Float32Array(buffer, begin, rows * columns) };
}

// The bytes of a file with this matrix.
export function writeNpy(data, rows, columns) {
  const description = `{'descr': '<f4', 'fortran_order': False, 'shape': (${rows}, ${columns}), }`;
  const begin = Math.ceil((10 + description.length + 1) / 64) * 64;
  const file = new Uint8Array(begin + data.byteLength);
  file.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0]);
  new DataView(file.buffer).setUint16(8, begin - 10, true);
  file.set(new TextEncoder().encode(`${description.padEnd(begin - 11)}\n`), 10);
  file.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), begin);
  return file;
}
