"""Shows runs on the terminal.

announce          a run that was just cast
follow            a run until its end
console           the console of a followed run
sieve             lines of a log that are looked for
timestamps        times in front of the lines of a log
detach            the message to a person who stops following
workflow_console  the console of a followed workflow
search_console    the console of a followed search
search_live       the live table of a search
top_live          the screen of `spell top`
metric_series     reduces a metric to the points that a terminal can show
metric_chart      draws metrics as a chart
search_chart      draws a metric of the trials of a search
bars              shows progress where a terminal is
progress          the progress bar
spinner           the line that shows that something is still going on
parts             files and folders that appear whole
redraw            draws text again in place
browser           opens a URL with a token in the browser
columns           fits the columns of tables to the width of a terminal
show              durations, sizes, times, tables and signs
streams           makes the standard streams reliable
"""
