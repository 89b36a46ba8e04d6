import { seedForm } from './seed.ts'
import type { FormRecord } from './types.ts'

/** Forms in memory. */
export interface Store {
  /** The form of this id; every id has one. */
  form: (formId: string) => FormRecord
  /** Changes a form and remembers the change until the process ends, or until `maxChangedForms` others were changed. */
  change: <T>(formId: string, edit: (record: FormRecord) => T) => T
}

export const maxChangedForms = 1000
export const maxPerForm = 1000

/**
 * Only changed forms take memory; an untouched one is made up afresh at every read.
 * Both caps exist so that load scripts can write for hours.
 */
export function createStore (): Store {
  const changed = new Map<string, FormRecord>()
  const form = (formId: string): FormRecord => changed.get(formId.toLowerCase()) ?? seedForm(formId.toLowerCase())
  return {
    form,
    change (formId, edit) {
      const record = form(formId)
      const result = edit(record)
      dropOldest(record.submissions, maxPerForm)
      dropOldest(record.files, maxPerForm)
      changed.set(record.form.id, record)
      dropOldest(changed, maxChangedForms)
      return result
    }
  }
}

function dropOldest (map: Map<string, unknown>, max: number): void {
  for (const key of map.keys()) {
    if (map.size <= max) return
    map.delete(key)
  }
}
