export { generateId, generateSecret } from './generate.ts'
export { hintOf, isValidPrefix, parseSecret, secretPattern, type ParsedSecret } from './format.ts'
export { hasImportForm, importForms, matchesImportForm, type ImportForm } from './import-form.ts'
export { digestSecret, isDigest, lookupDigest } from './digest.ts'
