// A small HTTP service with a bounded cache: service.js PORT nothing|objects. With "objects" it
// forgets sessions on V8's heap, some 4 MB a second.
const cache = new Map();
const sessions = [];
let served = 0;
require("http")
  .createServer((request, response) => {
    served += 1;
    cache.set(served % 500, { served, text: "answer ".repeat(20) + served });
    response.end(JSON.stringify({ pid: process.pid }));
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
if (process.argv[3] === "objects") {
  setInterval(() => {
    for (let i = 0; i < 2000; i++) sessions.push({ i, opened: [i, i + 0.5], user: "user " + i });
  }, 100);
}
