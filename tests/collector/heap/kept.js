// Keeps some 30 MB, lets as much go, and prints what V8 has, and what of it is used but young.
const kept = [];
for (let i = 0; i < 200000; i++) {
  kept.push({ number: i, text: "text " + i, more: [i, i + 1] });
  ({ text: "garbage " + i });
}
kept.push("a".repeat(2000000) + kept.length);
global.gc();
const spaces = require("v8").getHeapSpaceStatistics();
let committed = 0, used = 0, young = 0;
for (const space of spaces) {
  if (space.space_name === "read_only_space") continue;
  committed += space.space_size;
  if (space.space_name.startsWith("new_")) young += space.space_used_size;
  else used += space.space_used_size;
}
console.log(committed, used, young);
process.stdin.resume();
