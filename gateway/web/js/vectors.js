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
    matrix[i * rows + i] = 1;
    for (let j = i + 1; j < rows; j++) matrix[i * rows + j] = matrix[j * rows + i] = dot(vectors, i, vectors, j, dimension);
  }
  return matrix;
}

// For each of several rows the other row with the highest value: {index, score}.
export function nearestNeighbours(matrix, rows) {
  return Array.from({ length: rows }, (_, row) => {
    const others = matrix.slice(row * rows, (row + 1) * rows);
    others[row] = -Infinity;
    const score = Math.max(...others);
    return { index: others.indexOf(score), score };
  });
}

// An order of the rows in which similar rows are adjacent: the leaves of an average-linkage clustering.
export function clusterOrder(matrix, rows) {
  const link = Float64Array.from(matrix);
  const clusters = Array.from({ length: rows }, (_, id) => ({ id, leaves: [id] }));
  while (clusters.length > 1) {
    let best = { similarity: -Infinity };
    clusters.forEach((a, i) => {
      for (let j = i + 1; j < clusters.length; j++) {
        const similarity = link[a.id * rows + clusters[j].id];
        if (similarity > best.similarity) best = { similarity, a, b: clusters[j], j };
      }
    });
    const { a, b, j } = best;
    const [m, n] = [a.leaves.length, b.leaves.length];
    clusters.splice(j, 1);
    for (const { id } of clusters) link[a.id * rows + id] = link[id * rows + a.id] = (m * link[a.id * rows + id] + n * link[b.id * rows + id]) / (m + n);
    a.leaves.push(...b.leaves);
  }
  return clusters.flatMap(({ leaves }) => leaves);
}
