/** What the names and descriptions of seeded keys are made of. */
export const systems = [
  'Accounting', 'Archive', 'Billing', 'Clinic', 'Contracts', 'Dispatch', 'Elections', 'Energy', 'Fisheries', 'Fleet',
  'Forestry', 'Grants', 'Harbour', 'Helpdesk', 'Housing', 'Intake', 'Inventory', 'Laboratory', 'Ledger', 'Library',
  'Licensing', 'Mapping', 'Museum', 'Newsletter', 'Parks', 'Payroll', 'Permits', 'Pharmacy', 'Procurement', 'Records',
  'Recruiting', 'Registry', 'Research', 'School', 'Statistics', 'Survey', 'Tourism', 'Training', 'Transit', 'Water'
] as const

/** The first one twice over: a word that many keys share. */
export const purposes = [
  'export', 'export', 'import', 'sync', 'report', 'backup', 'dashboard', 'webhook', 'mobile app', 'monitor',
  'migration', 'nightly job', 'reader', 'notifier', 'reconciliation', 'portal', 'kiosk', 'bot', 'pipeline', 'audit'
] as const

export const places = [
  'Abbotsford', 'Burnaby', 'Campbell River', 'Castlegar', 'Chilliwack', 'Comox', 'Courtenay', 'Cranbrook', 'Dawson Creek', 'Delta',
  'Duncan', 'Fernie', 'Fort St. John', 'Golden', 'Hope', 'Kamloops', 'Kelowna', 'Kimberley', 'Kitimat', 'Langley',
  'Merritt', 'Nanaimo', 'Nelson', 'Parksville', 'Penticton', 'Port Alberni', 'Powell River', 'Prince George', 'Prince Rupert', 'Quesnel',
  'Revelstoke', 'Richmond', 'Rossland', 'Salmon Arm', 'Sidney', 'Smithers', 'Sooke', 'Squamish', 'Surrey', 'Terrace',
  'Tofino', 'Trail', 'Ucluelet', 'Vancouver', 'Vernon', 'Victoria', 'Whistler', 'White Rock', 'Williams Lake', 'Ymir'
] as const

export const stages = ['production', 'production', 'test', 'development'] as const

export const owners = [
  'the finance team', 'the data office', 'regional services', 'an outside contractor', 'the web team', 'the service desk',
  'field operations', 'the integration team', 'the auditors', 'the ministry', 'a research group', 'the night shift'
] as const

export const occasions = [
  'Runs every night at two.', 'Used by hand at the end of each month.', 'Ask before it is rotated: the other side needs a day.',
  'Temporary, until the new system is live.', 'Reads only.', 'Called by a scheduled job.', 'Part of the yearly report.',
  'Replaces the old account with a password.', 'For the pilot.', 'Bursts in the morning when the offices open.'
] as const
