import t from 'tap'
import { parseSource } from '../src/source.ts'
import { api, document, faultsOf, load, operation, parameter, write } from './helper.ts'

t.test('JSON and the same in YAML become the same values', async t => {
  const texts = [
    '{"a":[1,-0.5e3,true,null,"x:y"],"b":{},"":{"c:d":":"}}',
    '  \n\t[{"a":"\\"a\\":1"},{"a":"\\\\"},{"b":"\\\\\\":"}]',
    '{"\\u0061":1,"\\u00e9\\ud83d\\ude00":"\\/"}',
    '{"<<":{"a":1},"a":2,"__proto__":{"b":1},"constructor":{"toString":1}}'
  ]
  for (const text of texts) {
    const { root, faults } = parseSource('x.json', text)
    t.strictSame(faults, [])
    t.strictSame(JSON.stringify(root?.value), JSON.stringify(JSON.parse(text)), text)
    // A comment makes it YAML.
    t.strictSame(JSON.stringify(parseSource('x.yaml', `# YAML\n${text.trimStart()}`).root?.value), JSON.stringify(JSON.parse(text)), `YAML: ${text}`)
  }
})

t.test('a doubled key is found however it is written, with its place', async t => {
  const cases: Array<[string, RegExp]> = [
    ['{"a":1,\n "a":2}', /^x\.json:2:2: the same key is written twice; join the two or remove one\.$/],
    ['{"a":1,\n "\\u0061":2}', /^x\.json:2:2: the same key/],
    ['[{"a:b":"\\":"},\n{"b":{"c":[{"d":1,\n"d":1}]}}]', /^x\.json:3:1: the same key/],
    ['{"__proto__":1,\n"__proto__":{}}', /^x\.json:2:1: the same key/],
    ['{"\\\\":1,\n"\\\\":2}', /^x\.json:2:1: the same key/],
    ['{"":1,\n"":2}', /^x\.json:2:1: the same key/]
  ]
  for (const [text, fault] of cases) {
    const { root, faults } = parseSource('x.json', text)
    t.equal(root, null)
    t.equal(faults.length, 1, text)
    t.match(faults[0], fault, text)
  }
  t.strictSame(parseSource('x.json', '{"a":{"b":1},"c":{"b":":"}}').faults, [], 'the same key in two objects')
})

t.test('what is no JSON says where', async t => {
  t.match(parseSource('x.json', '{"a":1,\n"b":}}').faults, [/^x\.json:2:\d+: not valid YAML/])
  t.match(parseSource('x.json', '{"a":1}\n{"b":2}').faults, [/^x\.json:2:1: not valid YAML/])
})

t.test('faults in a JSON document name their lines', async t => {
  const paths = { '/forms/{formId}': { get: operation({ parameters: [parameter('formId')], security: [{ nobody: [] }] }) }, '/a//b': { get: operation() } }
  const text = JSON.stringify({ ...document, paths }, null, 2)
  const lineOf = (part: string): number => text.slice(0, text.indexOf(part)).split('\n').length
  const found = await faultsOf(write(t, { ...api, openapi: './openapi.json' }, { 'openapi.json': text }))
  t.equal(found.length, 2)
  t.ok(found.some(fault => fault.startsWith(`openapi.json:${lineOf('"nobody"')} paths["/forms/{formId}"].get.security[0].nobody: `)), found.join('\n'))
  t.ok(found.some(fault => fault.startsWith(`openapi.json:${lineOf('"/a//b"')} paths["/a//b"]: `)), found.join('\n'))
})

t.test('what is nested too deep is a fault and not the end of the stack', async t => {
  const nested = (levels: number, open: string, close: string): string => open.repeat(levels) + '1' + close.repeat(levels)
  for (const levels of [600, 5000, 200_000]) {
    t.match(parseSource('x.json', nested(levels, '{"a":', '}')).faults, [/^x\.json: is nested deeper than 500 levels\. Write it flatter/], `${levels} objects`)
    t.match(parseSource('x.json', nested(levels, '[', ']')).faults, [/^x\.json: is nested deeper/], `${levels} lists`)
  }
  for (const levels of [600, 5000]) t.match(parseSource('x.yaml', `a: ${nested(levels, '[', ']')}`).faults, [/^x\.yaml: is nested deeper than 500 levels/], `YAML, ${levels} lists`)
  t.strictSame(parseSource('x.json', nested(400, '[', ']')).faults, [])
  const schema = JSON.parse(nested(200, '{"properties":{"a":', '}}').replace('1', '{"type":"string"}')) as object
  const deep = await load(t, { openapi: './openapi.yaml' }, { components: { ...document.components, schemas: { Deep: schema } } })
  t.match(deep.document, { components: { schemas: { Deep: { properties: {} } } } }, 'what is allowed can be worked on')
})
