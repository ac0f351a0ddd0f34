// Similarity of unit vectors: the dot product is the cosine. Matrices are Float32Arrays in row order.

// The dot product of row i of `a` and row j of `b`.
export function dot(a, i, b, j, dimension) {
  let sum = 0;
  for (let k = 0, x = i * dimension, y = j * dimension; k < dimension; k++) sum += a[x + k] * b[y + k];
  return sum;
}

// The symmetric matrix (rows x rows) of all cosines.
export function similarities(vectors, rows, dimension) {
  const matrix = new Float32Array(rows * rows);
  for (let i = 0; i < rows; i++) {
    for (let j = i; j < rows; j++) matrix[i * rows + j] = matrix[j * rows + i] = dot(vectors, i, vectors, j, dimension);
  }
  return matrix;
}

// For each row the other row with the highest value: {index, score}, or null if there is no other row.
export function nearestNeighbours(matrix, rows) {
  return Array.from({ length: rows }, (_, row) => {
    let index = -1;
    for (let j = 0; j < rows; j++) if (j !== row && (index < 0 || matrix[row * rows + j] > matrix[row * rows + index])) index = j;
    return index < 0 ? null : { index, score: matrix[row * rows + index] };
  });
}

// An order of the rows in which similar rows are adjacent: the leaves of an average-linkage clustering.
export function clusterOrder(matrix, rows) {
  const clusters = Array.from({ length: rows }, (_, row) => [row]);
  const link = Float64Array.from(matrix);
  const alive = clusters.map((_, index) => index);
  while (alive.length > 1) {
    let best = [0, 1];
    for (let a = 0; a < alive.length; a++) {
      for (let b = a + 1; b < alive.length; b++) {
        if (link[alive[a] * rows + alive[b]] > link[alive[best[0]] * rows + alive[best[1]]]) best = [a, b];
      }
    }
    const [into, from] = [alive[best[0]], alive[best[1]]];
    const [left, right] = [clusters[into].length, clusters[from].length];
    for (const other of alive) {
      const mean = (link[into * rows + other] * left + link[from * rows + other] * right) / (left + right);
      link[into * rows + other] = link[other * rows + into] = mean;
    }
    clusters[into].push(...clusters[from]);
    alive.splice(best[1], 1);
  }
  return clusters[alive[0]] ?? [];
}
