import { Type } from 'typebox'

/**
 * Bounds of what crosses the wire. A reader refuses what is beyond them, so they are far beyond what the writer makes: they say what
 * cannot be, not what is wanted.
 */
export const uuid = (options: object = {}) => Type.String({ format: 'uuid', maxLength: 36, ...options })
export const machineText = (maxLength: number, options: object = {}) => Type.String({ maxLength, pattern: '^[\\x21-\\x7e]*$', ...options })
export const freeText = (maxLength: number, options: object = {}) => Type.String({ maxLength, pattern: '^[^\\u0000]*$', ...options })
export const count = (minimum: number, options: object = {}) => Type.Integer({ minimum, maximum: Number.MAX_SAFE_INTEGER, format: 'int64', ...options })
/** Unix milliseconds. */
export const moment = (options: object = {}) => count(0, options)
