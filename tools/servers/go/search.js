// Searches by Milvus's Go SDK, one query an iteration. GIVEN names a file of JSON: address, collection, field, limit,
// filter, queries, answers (true to print the hits of each query), and k6's options.
import exec from "k6/execution";
import milvus from "k6/x/milvus";

const given = JSON.parse(open(__ENV.GIVEN));
const client = milvus.client(given.address); // one for each virtual user
const params = { vectorField: given.field };
if (given.filter) params.expr = given.filter;

export const options = given.options;

export default function () {
  const number = exec.scenario.iterationInTest % given.queries.length;
  const hits = client.search(given.collection, [given.queries[number]], given.limit, params);
  if (given.answers) console.log(JSON.stringify([number, hits.map((hit) => hit.id), hits.map((hit) => hit.score)]));
}

export function handleSummary(data) {
  return { [given.summary]: JSON.stringify(data.metrics) };
}
