import t from 'tap'
import { stringify } from 'yaml'
import { api, document, faultsOf, operation, parameter, write } from './helper.ts'

t.test('paths that no request can be matched with in a single way', async t => {
  const get = (template: string, ...names: string[]) => ({ [template]: { get: operation({ parameters: names.map(parameter) }) } })
  const cases: Array<{ paths: object, change?: object, faults: RegExp[] }> = [
    { paths: { ...get('/a/{x}', 'x'), ...get('/a/{y}', 'y') }, faults: [/^openapi\.yaml:\d+ paths\["\/a\/\{y\}"\]\.get: matches the same requests as "\/a\/\{x\}"\. Keep one of the two paths\.$/] },
    { paths: { '/a/{x}': { get: operation({ parameters: [parameter('x')] }) }, '/a/{y}': { put: operation({ parameters: [parameter('y')] }) } }, faults: [] },
    { paths: { ...get('/a/{x}', 'x'), ...get('/a/b') }, faults: [] },
    { paths: get('/a/{x}/b/{x}', 'x'), faults: [/"\/a\/\{x\}\/b\/\{x\}" has the parameter "x" twice\. Give each its own name\.$/] },
    { paths: get('/a/{x'), faults: [/has a brace without its partner\. Write parameters as "\{name\}"\.$/] },
    { paths: get('/a/{}'), faults: [/has a parameter without a proper name/, /does not describe the parameter ""/] },
    { paths: get('/a?b=c'), faults: [/holds "\?" or "#", which are no part of a path\. Describe/] },
    { paths: get('/a/*'), faults: [/"\/a\/\*" holds "\*", which would look like a rule for everything below\. Describe what varies as a parameter, such as "\{name\}"\.$/] },
    { paths: get('/a%2Ab'), faults: [/"\/a%2Ab" holds "\*", which would look like a rule/] },
    { paths: get('/a%2a'), faults: [/holds "\*"/] },
    { paths: get('/a/{x}{y}', 'x', 'y'), faults: [/has two parameters without a text between them, and nobody can tell where one ends\. Put a text between, such as "-"\.$/] },
    { paths: get('/a/{x}.{y}-{z}', 'x', 'y', 'z'), faults: [] },
    { paths: { ...get('/caf\u00e9'), ...get('/caf%C3%A9') }, faults: [/paths\["\/caf%C3%A9"\]\.get: matches the same requests as "\/caf\u00e9"\. Keep one of the two paths\.$/] },
    { paths: { ...get('/a%40{x}', 'x'), ...get('/a@{y}', 'y') }, faults: [/matches the same requests as "\/a%40\{x\}"/] },
    { paths: get('/100%'), faults: [/has a "%" that begins no escape of UTF-8\. Write "%25" for the character itself\.$/] },
    { paths: get('/a%E9'), faults: [/has a "%" that begins no escape of UTF-8/] },
    { paths: get('/100%25'), faults: [] },
    { paths: get('/a%2fb'), faults: [/holds an encoded "\/", "\?" or "#", a backslash or NUL, which the gateway lets no request bring\. Choose another path\.$/] },
    { paths: get('/a%3Fb'), faults: [/holds an encoded/] },
    { paths: get('/a%5Cb'), faults: [/a backslash or NUL/] },
    { paths: get('/a//b'), faults: [/has an empty, "\." or "\.\." segment/] },
    { paths: get('/a/../b'), faults: [/has an empty, "\." or "\.\." segment/] },
    { paths: get('/a/'), faults: [] },
    { paths: get('/a/{x}'), faults: [/get: does not describe the parameter "x" of its path\. Add \{ name: x, in: path/] },
    { paths: get('/a/{x}', 'x', 'y'), faults: [/get\.parameters\[1\]\.name: "y" is no parameter of \/a\/\{x\}; did you mean "x"\?$/] },
    { paths: { ...get('/f/{formId}', 'formId'), ...get('/g/{form-id}', 'form-id') }, change: { project: { pathParameter: 'formId' } }, faults: [/paths\["\/g\/\{form-id\}"\]: spells the project's parameter "form-id", not "formId"\. Spell it alike, or it would be open to every project\.$/] },
    { paths: { '/a': { get: operation({ operationId: 'same' }) }, '/b': { get: operation({ operationId: 'same' }) } }, faults: [/paths\["\/b"\]\.get\.operationId: "same" also names "GET \/a"\. Give each operation its own operationId\.$/] }
  ]
  for (const { paths, change, faults } of cases) {
    const found = await faultsOf(write(t, { ...api, ...change }, { 'openapi.yaml': { ...document, paths } }))
    t.equal(found.length, faults.length, `${JSON.stringify(paths)}: ${found.join(' | ')}`)
    t.match(found, faults)
  }
  t.match(await faultsOf(write(t, api, { 'openapi.yaml': stringify(document).replace('components:', '  /forms/{formId}: {}\ncomponents:') })), [/^openapi\.yaml:\d+:\d+: the same key is written twice/])
  const json = JSON.stringify(document).replace('"paths":{', '"paths":{"/forms/{formId}":{},')
  t.match(await faultsOf(write(t, { ...api, openapi: 'openapi.json' }, { 'openapi.json': json })), [/^openapi\.json:1:\d+: the same key is written twice/], 'also in JSON')
})

t.test('paths that the gateway answers itself', async t => {
  const at = async (prefix: string, path: string, method = 'get'): Promise<string[]> =>
    await faultsOf(write(t, { ...api, prefix }, { 'openapi.yaml': { ...document, paths: { [path]: { [method]: operation({ parameters: [...path.matchAll(/\{(\w+)\}/g)].map(match => parameter(String(match[1]))) }) } } } }))
  const own = /^openapi\.yaml:8 paths\["\/.*"\]: "\/.*" is the gateway's own\. Give the API another prefix, or the path another name\.$/
  const published = /^openapi\.yaml:9 paths\["\/.*"\]\.(?:get|head): "\/.*" is where the gateway publishes what it enforces\. Give the path another name, or leave it out of the document\.$/
  const cases: Array<[prefix: string, path: string, method: string, fault: RegExp | null]> = [
    ['/', '/livez', 'get', own], ['/', '/readyz', 'post', own], ['/', '/.keygate/me', 'get', own], ['/', '/.keygate', 'get', own],
    ['/', '/%2Ekeygate/{x}', 'get', own], ['/', '/l%69vez', 'get', own],
    ['/', '/docs', 'get', published], ['/v1', '/docs', 'get', published], ['/v1', '/d%6Fcs', 'head', published], ['/v1', '/openapi.json', 'get', published],
    ['/v1', '/docs', 'post', null], ['/v1', '/livez', 'get', null], ['/v1', '/.keygate/me', 'get', null], ['/v1', '/docs/', 'get', null], ['/v1', '/docs/{x}', 'get', null],
    ['/v1', '/{page}', 'get', null], ['/', '/{page}', 'get', null], ['/', '/livez/x', 'get', null]
  ]
  for (const [prefix, path, method, fault] of cases) {
    const found = await at(prefix, path, method)
    t.equal(found.length, fault === null ? 0 : 1, `${method} ${prefix} ${path}: ${found.join(' | ')}`)
    if (fault !== null) t.match(found, [fault])
  }
})
