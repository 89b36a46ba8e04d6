import neostandard, { plugins } from 'neostandard'

const room = (files, group, message) =>
  ({ files, rules: { 'no-restricted-imports': ['error', { patterns: [{ group, message }] }] } })

const textInStatement = 'Text in a statement: make the value a parameter of the sql`` template.'

const services = ['@keygate/gateway', '@keygate/key-service']

export default [
  ...neostandard({ ts: true, ignores: ['**/dist/**', '**/.tap/**', '.keygate/**'] }),
  { files: ['{packages,services,infra}/**/*.ts'], plugins: { n: plugins.n }, rules: { 'n/no-extraneous-import': 'error' } },
  { files: ['{packages,services}/*/src/**'], rules: { 'no-console': 'error', 'n/no-process-env': 'error' } },
  // A TypeBox schema and its type share one name.
  { files: ['**/*.ts'], rules: { '@typescript-eslint/no-redeclare': 'off', 'no-redeclare': 'off' } },
  // A room's settings have one door, and the process that opens it.
  { files: ['services/*/src/{config,server,cli,seed}.ts'], rules: { 'n/no-process-env': 'off' } },
  // Values go into statements as parameters (hardening.md 15), whatever name the template goes by.
  {
    files: ['{packages,services}/*/src/**'],
    rules: {
      'no-restricted-properties': ['error', { object: 'sql', property: 'raw', message: textInStatement }, { property: 'unsafe', message: textInStatement }],
      'no-restricted-syntax': ['error',
        { selector: 'CallExpression:matches([callee.name="raw"], [callee.property.name="raw"], [callee.property.value="raw"])', message: textInStatement },
        // A string is a statement too.
        { selector: 'CallExpression[callee.property.name="execute"] > :matches(Literal, TemplateLiteral, BinaryExpression).arguments', message: textInStatement }
      ]
    }
  },
  room(['packages/*/src/**'], ['@keygate/*'], 'A package imports no other room.'),
  room(['packages/*/test/**'], ['@keygate/*', '!@keygate/local'], 'A package\'s test starts real servers with @keygate/local and imports no other room.'),
  room(['services/gateway/src/**'], ['@keygate/key-service', '@keygate/local', '@keygate/upstream', 'drizzle-orm', 'drizzle-orm/*', 'postgres'], 'PostgreSQL and keys belong to key-service.'),
  room(['services/key-service/src/**'], ['@keygate/gateway', '@keygate/local', '@keygate/upstream'], 'A service imports no service.'),
  room(['services/*/test/**'], services, 'A service talks to another service over HTTP only.'),
  room(['infra/**', 'k6/**'], services, 'Infrastructure starts the services as processes and talks HTTP.')
]
