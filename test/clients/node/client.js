// KafkaJS: what it sees of the broker. Usage: node client.js HOST:PORT
'use strict'
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, Partitioners, logLevel } = require('kafkajs')
const snappy = require('snappy')
const lz4 = require('lz4-napi')
const { ZstdCodec } = require('zstd-codec')

// KafkaJS brings gzip only. Snappy comes framed by some producers ("xerial"); what it reads here it wrote itself.
CompressionCodecs[CompressionTypes.Snappy] = () => ({ compress: async e => snappy.compress(e.buffer), decompress: async b => snappy.uncompress(b) })
CompressionCodecs[CompressionTypes.LZ4] = () => ({ compress: async e => lz4.compressFrame(e.buffer), decompress: async b => lz4.decompressFrame(b) })

const tag = Date.now().toString(16)
const name = s => `c-kafkajs-${s}-${tag}`
const kafka = new Kafka({ clientId: 'proof', brokers: [process.argv[2] || '127.0.0.1:9092'], logLevel: logLevel.NOTHING, retry: { retries: 5 } })
const admin = kafka.admin()
let failed = 0

async function that (what, fn) {
  const begin = Date.now()
  try {
    const s = await fn()
    console.log(`ok kafkajs/${what} ${s} (${Date.now() - begin} ms)`)
  } catch (e) {
    failed++
    const at = ((e.stack || '').match(/client\.js:\d+/) || [''])[0]
    console.log(`FAIL kafkajs/${what} ${e.name}: ${String(e.message).replace(/\n/g, ' ').slice(0, 300)} ${e.type || ''} ${at}`)
  }
}
const equal = (got, want, what = '') => {
  const g = JSON.stringify(got); const w = JSON.stringify(want)
  if (g !== w) throw new Error(`${what} got ${(g + '').slice(0, 200)}, want ${(w + '').slice(0, 200)}`)
}
async function wait (cond, what) {
  const end = Date.now() + 20000
  while (!(await cond())) {
    if (Date.now() > end) throw new Error('after 20 s: ' + what())
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}
async function fails (what, type, fn) {
  try { await fn() } catch (e) {
    const got = e.type || (e.errors && e.errors[0] && e.errors[0].type) || (e.cause && e.cause.type)
    if (got === type) return
    throw new Error(`${what}: got ${got} (${e.message}), want ${type}`)
  }
  throw new Error(`${what}: passed, want ${type}`)
}
async function topic (s, parts = 1, conf = {}) {
  const t = name(s)
  await admin.createTopics({ waitForLeaders: true, topics: [{ topic: t, numPartitions: parts, replicationFactor: Number(process.env.FACTOR || 1), configEntries: Object.entries(conf).map(([name, value]) => ({ name, value })) }] })
  return t
}
async function produce (t, messages, opts = {}, conf = {}) {
  const p = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, ...conf })
  await p.connect()
  try { return await p.send({ topic: t, messages, acks: -1, ...opts }) } finally { await p.disconnect() }
}
const text = (seed, n) => `event ${seed} of some text that repeats; `.repeat(n / 30 + 1).slice(0, n)

async function member (group, t, opts = {}) {
  const m = { seen: [], own: [], joins: 0 }
  m.c = kafka.consumer({ groupId: group, heartbeatInterval: 300, sessionTimeout: 10000, rebalanceTimeout: 10000, maxWaitTimeInMs: 200, ...opts })
  m.c.on(m.c.events.GROUP_JOIN, e => { m.joins++; m.own = e.payload.memberAssignment[t] || [] })
  await m.c.connect()
  await m.c.subscribe({ topics: [t], fromBeginning: true })
  await m.c.run({ autoCommitInterval: 100, eachMessage: async ({ partition, message }) => { m.seen.push({ partition, ...message }) } })
  m.leave = () => m.c.disconnect()
  return m
}
async function read (t, n, opts = {}) {
  const m = await member(name('read-' + Math.random()), t, opts)
  try { await wait(() => m.seen.length >= n, () => `${m.seen.length} of ${n} records`) } finally { await m.leave() }
  return m.seen
}

async function main () {
  await new Promise(resolve => ZstdCodec.run(z => {
    const s = new z.Streaming()
    CompressionCodecs[CompressionTypes.ZSTD] = () => ({ compress: async e => Buffer.from(s.compress(e.buffer)), decompress: async b => Buffer.from(s.decompress(b)) })
    resolve()
  }))
  await admin.connect()
  for (const [z, compression] of Object.entries({ none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy, lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD })) {
    await that('codec-' + z, async () => {
      const t = await topic('codec-' + z)
      await produce(t, Array.from({ length: 200 }, (_, i) => ({ key: 'k' + i, value: text(i, 300), headers: { n: '' + i } })), { compression })
      const got = await read(t, 200)
      got.forEach((m, i) => equal([m.offset, m.key.toString(), m.value.toString(), m.headers.n.toString()], ['' + i, 'k' + i, text(i, 300), '' + i]))
      return '200 records with keys and headers came back equal'
    })
  }
  await that('nulls', async () => {
    const t = await topic('nulls')
    await produce(t, [{ key: null, value: null }, { key: '', value: null }, { key: null, value: '' }])
    equal((await read(t, 3)).map(m => [m.key && m.key.length, m.value && m.value.length]), [[null, null], [0, null], [null, 0]])
    return 'null and empty keys and values stay apart'
  })
  await that('big', async () => {
    const t = await topic('big', 1, { 'max.message.bytes': '2000000' })
    const v = require('crypto').randomBytes(1 << 20)
    await produce(t, [{ value: v }])
    equal((await read(t, 1, { maxBytesPerPartition: 5000 }))[0].value.equals(v), true)
    const small = await topic('big-default')
    await fails('a default topic', 'MESSAGE_TOO_LARGE', () => produce(small, [{ value: v }]))
    return '1 MiB passed; a default topic refused it'
  })
  await that('timestamps-and-offsets-by-time', async () => {
    const t = await topic('ts')
    const t0 = Date.now() - 3600000
    for (let i = 0; i < 5; i++) await produce(t, [{ value: 'v', timestamp: '' + (t0 + i * 1000) }])
    equal((await read(t, 5)).map(m => m.timestamp), [0, 1, 2, 3, 4].map(i => '' + (t0 + i * 1000)))
    equal((await admin.fetchTopicOffsetsByTimestamp(t, t0 + 2500))[0].offset, '3', 'between')
    equal((await admin.fetchTopicOffsets(t)).map(o => [o.low, o.high]), [['0', '5']])
    return 'create time kept, offset between two times, low and high'
  })
  await that('seek', async () => {
    const t = await topic('seek')
    await produce(t, Array.from({ length: 100 }, (_, i) => ({ value: '' + i })))
    const m = await member(name('g-seek'), t)
    await wait(() => m.seen.length >= 100, () => 'nothing read')
    m.seen.length = 0
    m.c.seek({ topic: t, partition: 0, offset: '61' })
    await wait(() => m.seen.length >= 39, () => `${m.seen.length} of 39 after a seek to 61`)
    equal(m.seen[0].offset, '61')
    await m.leave()
    return 'back to 61 of 100'
  })
  await that('idempotent', async () => {
    const t = await topic('idem')
    const p = kafka.producer({ idempotent: true, maxInFlightRequests: 1, createPartitioner: Partitioners.DefaultPartitioner })
    await p.connect()
    for (let k = 0; k < 10; k++) await p.send({ topic: t, messages: Array.from({ length: 50 }, (_, i) => ({ value: '' + (k * 50 + i) })) })
    await p.disconnect()
    equal((await read(t, 500)).map(m => +m.value), Array.from({ length: 500 }, (_, i) => i))
    return '500 records in order, once each'
  })
  await that('group', async () => {
    const t = await topic('group', 4); const g = name('g')
    await produce(t, Array.from({ length: 400 }, (_, i) => ({ partition: i % 4, value: '' + i })))
    const a = await member(g, t)
    await wait(() => a.own.length === 4 && a.seen.length === 400, () => `${a.own} ${a.seen.length}`)
    const b = await member(g, t)
    await wait(() => a.own.length === 2 && b.own.length === 2, () => `${a.own} and ${b.own}`)
    await a.leave()
    await wait(() => b.own.length === 4, () => `after a leave ${b.own}`)
    await produce(t, Array.from({ length: 4 }, (_, i) => ({ partition: i, value: 'new' })))
    await wait(() => b.seen.length === 4, () => `${b.seen.length} new records, want 4`)
    await b.leave()
    return '4, 2+2, 4 partitions; committed offsets carried over'
  })
  await that('admin', async () => {
    const t = await topic('admin', 2, { 'retention.ms': '111111' })
    equal(await admin.createTopics({ topics: [{ topic: t }] }), false, 'second create')
    await fails('bad name', 'INVALID_TOPIC_EXCEPTION', () => admin.createTopics({ topics: [{ topic: 'a/b' }] }))
    await admin.createPartitions({ topicPartitions: [{ topic: t, count: 4 }] })
    await wait(async () => (await admin.fetchTopicMetadata({ topics: [t] })).topics[0].partitions.length === 4, () => 'not 4 partitions')
    const r = await admin.describeConfigs({ includeSynonyms: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: t, configNames: ['retention.ms'] }] })
    equal(r.resources[0].configEntries.map(e => e.configValue), ['111111'])
    await admin.alterConfigs({ validateOnly: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: t, configEntries: [{ name: 'retention.ms', value: '222222' }] }] })
    const c = await admin.describeCluster()
    equal(c.brokers.length, Number(process.env.FACTOR || 1))
    await produce(t, Array.from({ length: 20 }, () => ({ partition: 0, value: 'v' })))
    await admin.deleteTopicRecords({ topic: t, partitions: [{ partition: 0, offset: '6' }] })
    equal((await admin.fetchTopicOffsets(t)).find(o => o.partition === 0).low, '6')
    const g = name('g-admin')
    await admin.setOffsets({ groupId: g, topic: t, partitions: [{ partition: 0, offset: '9' }] })
    equal((await admin.fetchOffsets({ groupId: g, topics: [t] }))[0].partitions.find(o => o.partition === 0).offset, '9')
    equal((await admin.listGroups()).groups.some(x => x.groupId === g), true, 'listed')
    equal((await admin.describeGroups([g])).groups[0].state, 'Empty')
    await admin.deleteGroups([g])
    await admin.deleteTopics({ topics: [t] })
    await wait(async () => !(await admin.listTopics()).includes(t), () => 'still listed')
    return 'create, exists, bad name, grow, configs, cluster, delete records, group offsets, delete'
  })
  await admin.disconnect()
  console.log('done kafkajs')
  process.exit(failed ? 1 : 0)
}
main().catch(e => { console.log('FAIL kafkajs/run ' + e.stack.replace(/\n/g, '|')); process.exit(1) })
