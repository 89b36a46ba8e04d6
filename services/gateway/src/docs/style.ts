/** The page's own style. Colours have a contrast of at least 4.5 to 1 on their ground, in either scheme (WCAG 2.2, 1.4.3). */
export const style = `
:root { color-scheme: light dark; --ground: #ffffff; --raised: #f3f5f7; --text: #1b1f24; --quiet: #4d5560; --line: #8a939e; --link: #0b57b8; --closed: #8f2c14; --open: #14633a }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171a; --raised: #1f242a; --text: #e8ebee; --quiet: #b3bbc4; --line: #79838e; --link: #8ab8ff; --closed: #ffab94; --open: #7fd8a4 }
}
* { box-sizing: border-box }
html { scroll-padding-top: 3.5rem }
body { margin: 0; background: var(--ground); color: var(--text); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere }
header, main, footer, .bar ul { max-width: 64rem; margin: 0 auto; padding: 0 1rem }
header { padding-top: 1rem }
footer { padding-block: 1rem }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 1rem 0 .25rem }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 2.5rem 0 .5rem }
h3 { font-size: 1.05rem; line-height: 1.4; margin: 1.25rem 0 .25rem }
article h3 { margin: 0 }
h4 { font-size: 1rem; margin: 1rem 0 .25rem }
p { margin: .5rem 0; max-width: 44rem }
a { color: var(--link) }
a:focus-visible { outline: 3px solid var(--link); outline-offset: 2px }
.bar a:focus-visible { outline-offset: -3px }
header .quiet a { white-space: nowrap }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .9em }
pre { background: var(--raised); border: 1px solid var(--line); border-radius: .4rem; padding: .75rem; white-space: pre-wrap }
ul { padding-left: 1.25rem; margin: .25rem 0 }
li { margin: .2rem 0 }
li p { margin: 0 }
dl { margin: .5rem 0 }
dt { font-weight: 600 }
dd { margin: 0 0 .5rem }
.bar { position: sticky; top: 0; z-index: 1; background: var(--ground); border-bottom: 1px solid var(--line); margin-top: 1rem }
.bar ul { display: flex; gap: 1.5rem; list-style: none }
.bar li { margin: 0 }
.bar a { display: block; padding: .5rem 0 }
.list ul { list-style: none; padding: 0; columns: 24rem; column-gap: 2rem }
.list li { break-inside: avoid; margin: 0 }
.list a { display: grid; grid-template-columns: 4.75rem minmax(0, 1fr); align-items: baseline; padding: .25rem 0; text-decoration: none }
.list a:hover { text-decoration: underline }
article { background: var(--raised); border: 1px solid var(--line); border-left-width: .35rem; border-radius: .4rem; padding: 1rem; margin: 1rem 0; content-visibility: auto; contain-intrinsic-size: auto 28rem }
article.key, article.public { border-left-color: var(--open) }
article.other { border-left-color: var(--closed) }
.quiet { color: var(--quiet) }
.mark { display: inline-block; margin: .5rem 0 0; padding: 0 .6rem; border: 1px solid; border-radius: 1rem; font-size: .875rem; font-weight: 600; color: var(--open) }
.other .mark { color: var(--closed) }
@media (min-width: 48rem) {
  dl { display: grid; grid-template-columns: 10rem 1fr; gap: .25rem 1rem }
  dd { margin: 0 }
}
`
