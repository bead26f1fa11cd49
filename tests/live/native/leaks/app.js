// app.js ADDON: calls the addon 1,000 times a second; a line is answered by how often so far.
const addon = require(process.argv[2]);
let handled = 0;

function handleMessage() {
    addon.store();
    return JSON.stringify({ handled: handled++, text: "x".repeat(50) });
}

setInterval(() => {
    for (let i = 0; i < 10; i++) handleMessage();
}, 10);
process.stdin.on("data", () => console.log(handled));
process.stdin.on("end", () => process.exit(0));
console.log("ready");
