// Declared functions with Milvus's Node SDK: `node functions.mjs DIRECTORY ADDRESS < case.json`.
// The case: collection, source and target (fields of its schema), fields, functions, index, rows, queries, limit.
// Prints what the SDK sees of the function, and the ids and scores of each query.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const [directory, address] = process.argv.slice(2);
const { MilvusClient } = createRequire(join(directory, "package.json"))("@zilliz/milvus2-sdk-node");
const { collection, source, target, fields, functions, index, rows, queries, limit } = JSON.parse(readFileSync(0, "utf8"));
const named = { collection_name: collection };

function checked(answer) {
  const status = answer.status ?? answer;
  if (status.error_code !== "Success") throw new Error(status.reason);
  return answer;
}

const client = new MilvusClient({ address });
await client.connectPromise;
checked(await client.createCollection({ ...named, fields, functions, consistency_level: "Strong" }));
for (const one of index) checked(await client.createIndex({ ...named, ...one }));
checked(await client.loadCollectionSync(named));
checked(await client.insert({ ...named, data: rows }));
const { schema } = checked(await client.describeCollection(named));
const asked = { ...named, anns_field: target, limit, output_fields: ["id"] };
const single = checked(await client.search({ ...asked, data: queries }));
const parts = [{ anns_field: target, data: [queries[0]] }];
const hybrid = checked(await client.hybridSearch({ ...named, data: parts, limit, output_fields: ["id"] }));
await client.closeConnection();

const hit = ({ id, score }) => [Number(id), score];
const outputs = schema.fields.filter((field) => field.is_function_output).map((field) => field.name);
const inputs = schema.functions.map((one) => one.input_field_names[0]);
console.log(
  JSON.stringify({
    outputs,
    reads: inputs.every((name) => name === source),
    found: single.results.map((hits) => hits.map(hit)),
    fused: hybrid.results.map((one) => Number(one.id)),
  })
);
