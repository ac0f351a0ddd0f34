// The `count` rows with the highest cosine to `query`, best first: [{row, score}]. Vectors have norm 1, and a length
// that is a multiple of 4; rows whose `ready` is 0, and the row `excluded`, are not compared.
export function topRows(vectors, ready, query, count, excluded = -1) {
  const width = query.length, top = [];
  for (let row = 0, start = 0; row < ready.length; row++, start += width) {
    if (!ready[row] || row === excluded) continue;
    // The processor adds four independent sums at the same time.
    let a = 0, b = 0, c = 0, d = 0;
    for (let i = 0; i < width; i += 4) {
      a += vectors[start + i] * query[i];
      b += vectors[start + i + 1] * query[i + 1];
      c += vectors[start + i + 2] * query[i + 2];
      d += vectors[start + i + 3] * query[i + 3];
    }
    const score = a + b + (c + d);
    if (top.length === count && score <= top[count - 1].score) continue;
    let place = top.length;
    while (place && top[place - 1].score < score) place--;
    top.splice(place, 0, { row, score });
    if (top.length > count) top.pop();
  }
  return top;
}
