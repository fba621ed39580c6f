// Runs the steps of a scenario with Milvus's Node SDK: `node run.mjs DIRECTORY ADDRESS < steps.json`.
// DIRECTORY holds node_modules. Prints a JSON list with one result per step, in the words of tests/sdk/scenario.py.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const [directory, address] = process.argv.slice(2);
const { MilvusClient, DataType, ConsistencyLevelEnum } = createRequire(join(directory, "package.json"))(
  "@zilliz/milvus2-sdk-node"
);

const STRONG = ConsistencyLevelEnum.Strong;
const GRPC_CODES = { 3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED", 5: "NOT_FOUND", 12: "UNIMPLEMENTED", 14: "UNAVAILABLE" };

// Milvus says what went wrong in a status, which the SDK returns here and throws there; it looks at the old code alone.
function checked(answer) {
  const status = answer?.status ?? answer;
  if (status?.error_code !== undefined && (status.error_code !== "Success" || status.code)) throw status;
  return answer;
}

function failure(error) {
  const status = error?.status ?? error;
  if (status?.error_code !== undefined) return { code: status.code, legacy: status.error_code, reason: status.reason };
  if (typeof error?.code === "number") return { code: GRPC_CODES[error.code] ?? error.code, reason: error.details };
  return { code: "client", reason: String(error?.message ?? error) };
}

// pymilvus spreads the dynamic fields over the row.
function row({ $meta, ...fields }) {
  return { ...fields, ...$meta };
}

function rows(found) {
  return found.map(row);
}

function hits(found, { key = "id" }) {
  return found.map(({ [key]: id, score, ...fields }) => ({ id, score, fields: row(fields) }));
}

function scope(step) {
  return {
    collection_name: step.collection,
    ...(step.filter === undefined ? {} : { filter: step.filter }),
    ...(step.output_fields === undefined ? {} : { output_fields: step.output_fields }),
    ...(step.partitions === undefined ? {} : { partition_names: step.partitions }),
    ...(step.limit === undefined ? {} : { limit: step.limit }),
    ...(step.offset === undefined ? {} : { offset: step.offset }),
    consistency_level: STRONG,
  };
}

function field({ name, type, primary, auto_id, partition_key, element, ...params }) {
  return {
    name,
    data_type: DataType[type],
    ...(primary ? { is_primary_key: true } : {}),
    ...(auto_id ? { autoID: true } : {}),
    ...(partition_key ? { is_partition_key: true } : {}),
    ...(element ? { element_type: DataType[element] } : {}),
    ...params,
  };
}

function written(answer) {
  const { succ_index, IDs, insert_cnt, upsert_cnt } = checked(answer);
  return { count: Number(upsert_cnt) || Number(insert_cnt) || succ_index.length, ids: (IDs.int_id ?? IDs.str_id).data };
}

// The SDK hands on the keys of a search's hits only as an output field.
function keyed(step) {
  return { ...scope(step), output_fields: [...(step.output_fields ?? []), step.key ?? "id"] };
}

async function collected(iterator) {
  const batches = [];
  for await (const batch of iterator) batches.push(batch);
  return batches;
}

const ACTIONS = {
  create_collection: (client, step) =>
    client.createCollection({
      collection_name: step.collection,
      description: step.description ?? "",
      fields: step.fields.map(field),
      enable_dynamic_field: step.dynamic ?? false,
      consistency_level: "Strong",
      ...(step.properties ? { properties: step.properties } : {}),
      ...(step.num_partitions ? { num_partitions: step.num_partitions } : {}),
    }).then(checked).then(() => null),
  create_index: (client, step) =>
    client.createIndex({
      collection_name: step.collection,
      field_name: step.field,
      ...(step.index_type ? { index_type: step.index_type } : {}),
      ...(step.metric ? { metric_type: step.metric } : {}),
      ...(step.index_name ? { index_name: step.index_name } : {}),
      params: step.params ?? {},
    }).then(checked).then(() => null),
  drop_index: (client, step) =>
    client.dropIndex({ collection_name: step.collection, index_name: step.index_name }).then(checked).then(() => null),
  load: (client, step) => client.loadCollectionSync({ collection_name: step.collection }).then(checked).then(() => null),
  release: (client, step) => client.releaseCollection({ collection_name: step.collection }).then(checked).then(() => null),
  load_state: async (client, step) => checked(await client.getLoadState({ collection_name: step.collection })).state,
  insert: async (client, step) =>
    written(await client.insert({
      collection_name: step.collection, data: step.rows, ...(step.partition ? { partition_name: step.partition } : {}),
    })),
  upsert: async (client, step) =>
    written(await client.upsert({
      collection_name: step.collection, data: step.rows, ...(step.partition ? { partition_name: step.partition } : {}),
    })),
  delete: async (client, step) => {
    const { ids, filter, partition } = step;
    const answer = await client.delete({
      collection_name: step.collection,
      ...(ids ? { ids } : { filter }),
      ...(partition ? { partition_name: partition } : {}),
    });
    return { count: Number(checked(answer).delete_cnt) };
  },
  flush: (client, step) => client.flushSync({ collection_names: [step.collection] }).then(checked).then(() => null),
  query: async (client, step) => rows(checked(await client.query(scope(step))).data),
  get: async (client, step) => rows(checked(await client.get({ ...scope(step), ids: step.ids })).data),
  count: async (client, step) =>
    Number(checked(await client.query({ ...scope(step), output_fields: ["count(*)"] })).data[0]["count(*)"]),
  search: async (client, step) => {
    const found = checked(await client.search({
      ...keyed(step),
      data: step.vectors,
      ...(step.field ? { anns_field: step.field } : {}),
      ...(step.metric ? { metric_type: step.metric } : {}),
      ...(step.params ? { params: step.params } : {}),
      ...(step.group_by ? { group_by_field: step.group_by } : {}),
    })).results;
    return (Array.isArray(found[0]) ? found : [found]).map(one => hits(one, step));
  },
  hybrid_search: async (client, step) => {
    const found = checked(await client.search({
      ...keyed(step),
      data: step.requests.map(({ field: anns_field, vector, params, filter }) => ({
        anns_field, data: vector, params: params ?? {}, ...(filter ? { expr: filter } : {}),
      })),
      rerank: { strategy: step.ranker, params: step.ranker_params ?? {} },
    })).results;
    return [hits(found, step)];
  },
  search_iterator: async (client, step) => {
    const iterator = await client.searchIterator({
      ...keyed(step),
      data: step.vectors[0],
      batchSize: step.batch,
      ...(step.field ? { anns_field: step.field } : {}),
      ...(step.metric ? { metric_type: step.metric } : {}),
      ...(step.params ? { params: step.params } : {}),
    });
    return (await collected(iterator)).map(batch => hits(batch, step));
  },
  query_iterator: async (client, step) => {
    const iterator = await client.queryIterator({ ...scope(step), expr: step.filter ?? "", batchSize: step.batch });
    return (await collected(iterator)).map(rows);
  },
  describe_collection: (client, step) => client.describeCollection({ collection_name: step.collection }).then(checked),
  describe_index: (client, step) => client.describeIndex({ collection_name: step.collection }).then(checked),
  list_indexes: (client, step) => client.listIndexes({ collection_name: step.collection }).then(checked),
  statistics: async (client, step) =>
    Number(checked(await client.getCollectionStatistics({ collection_name: step.collection })).data.row_count),
  has_collection: async (client, step) => checked(await client.hasCollection({ collection_name: step.collection })).value,
  list_collections: async (client, step) =>
    checked(await client.showCollections()).data.map(({ name }) => name).filter(name => name.startsWith(step.prefix)).sort(),
  rename_collection: (client, step) =>
    client.renameCollection({ collection_name: step.collection, new_collection_name: step.to }).then(checked).then(() => null),
  alter_collection: (client, step) =>
    client.alterCollectionProperties({ collection_name: step.collection, properties: step.properties })
      .then(checked).then(() => null),
  drop_collection: (client, step) => client.dropCollection({ collection_name: step.collection }).then(checked).then(() => null),
  create_alias: (client, step) =>
    client.createAlias({ collection_name: step.collection, alias: step.alias }).then(checked).then(() => null),
  alter_alias: (client, step) =>
    client.alterAlias({ collection_name: step.collection, alias: step.alias }).then(checked).then(() => null),
  drop_alias: (client, step) => client.dropAlias({ alias: step.alias }).then(checked).then(() => null),
  create_partition: (client, step) =>
    client.createPartition({ collection_name: step.collection, partition_name: step.partition }).then(checked).then(() => null),
  has_partition: async (client, step) =>
    checked(await client.hasPartition({ collection_name: step.collection, partition_name: step.partition })).value,
  list_partitions: async (client, step) =>
    checked(await client.showPartitions({ collection_name: step.collection })).partition_names.sort(),
  drop_partition: (client, step) =>
    client.dropPartition({ collection_name: step.collection, partition_name: step.partition }).then(checked).then(() => null),
  version: async client => checked(await client.getVersion()).version,
  list_databases: async client => checked(await client.listDatabases()).db_names.sort(),
};

const client = new MilvusClient({ address, logLevel: "error", maxRetries: 0 });
await client.connectPromise;
const results = [];
// JSON has no NaN
const steps = JSON.parse(readFileSync(0, "utf8"), (_, value) => (value === "NaN" ? NaN : value));
for (const step of steps) {
  try {
    results.push({ ok: await ACTIONS[step.do](client, step) });
  } catch (error) {
    results.push({ error: failure(error) });
  }
}
process.stdout.write(JSON.stringify(results), () => process.exit(0));
