#Requires -Version 5.1
<#
.SYNOPSIS
    Makes one run of the health watch: asks app and tunnel, counts failures across runs, restarts
    the tunnel, and tells people when that does not help.

.DESCRIPTION
    For the Windows Task Scheduler, every minute; scripts/Register-Tasks.ps1 installs it. Two
    consecutive failures of either check restart the service. What still fails after that is an
    incident: one alert (console, Windows event log, log file and, if given, a webhook), a non-zero
    exit code while it lasts, and one recovery notice when it is over. An app that answers and says
    that it is degraded (another model is served than should be) is alerted once as well, and nothing
    is restarted for it.

    Exit codes: 0 well, or not failing for long enough; 3 an incident lasts, or the app is degraded;
    2 an address that is none; 6 another run is under way; 1 the run itself failed, or PowerShell refused a parameter.
    See docs/WINDOWS.md.

.EXAMPLE
    powershell.exe -NoProfile -File health_watch.ps1 -RestartOn External

.EXAMPLE
    powershell.exe -NoProfile -File health_watch.ps1 -RestartCommand "powershell.exe -NoProfile -File C:\tools\cf_restart.ps1 -TunnelId <TUNNEL_ID>"
#>
[CmdletBinding()]
param(
    # The app itself.
    [string]$InternalUrl = 'http://localhost:8000/health',
    # The app through the tunnel; empty: not watched.
    [string]$ExternalUrl = 'https://api.pillsnap.co.kr/health',
    # For each check.
    [ValidateRange(1, 60)][int]$TimeoutSeconds = 10,
    # Consecutive failures of either check until something is done.
    [ValidateRange(1, 1000)][int]$Failures = 2,
    # Consecutive good runs until an incident is over.
    [ValidateRange(1, 1000)][int]$Successes = 2,
    # External: restart only where the tunnel alone is down.
    [ValidateSet('Any', 'External')][string]$RestartOn = 'Any',
    # The service that is restarted; empty, with no command: nothing is.
    [string]$ServiceName = 'Cloudflared',
    # A command line that is run instead of restarting the service.
    [string]$RestartCommand = '',
    # A stop, a start or a command that takes longer is ended; a whole run has 15 minutes.
    [ValidateRange(1, 120)][int]$RestartTimeoutSeconds = 60,
    # After a restart the checks get this long to answer again.
    [ValidateRange(0, 60)][int]$SettleSeconds = 20,
    # More are not tried: then only an alert.
    [ValidateRange(0, 60)][int]$MaxRestartsPerHour = 3,
    # env:NAME of the variable that holds the address; the address itself is a secret.
    [ValidatePattern('^(env:[A-Za-z_][A-Za-z0-9_]*)?$')][string]$Webhook = '',
    # In the event log (Application): id 100 alert, 101 recovery, 102 trouble of the watch.
    [string]$EventSource = 'PillSnapHealth',
    # A line a run.
    [string]$LogPath = 'C:\ProgramData\Cloudflare\cloudflared\health_watch.log',
    # A larger log is renamed to <log>.1, which replaces the one before.
    [ValidateRange(1, 1024)][int]$MaxLogMB = 10,
    # What survives between runs.
    [string]$StatePath = 'C:\ProgramData\Cloudflare\cloudflared\health_watch.state.json'
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

# --- decisions: no clock, no disk, no network; the same as opslib/upkeep/health_rules.py ---------

function Get-FailedLayer {
    # '' where all is well; external is $null where it is not watched.
    param([hashtable]$Checks)
    $externalFailed = ($null -ne $Checks.external) -and (-not $Checks.external)
    if ($Checks.internal -and $externalFailed) { return 'tunnel' }
    if ($Checks.internal) { return '' }
    if ($externalFailed) { return 'both' }
    return 'app'
}

function Get-EmptyState {
    return @{
        internal_failures = 0
        external_failures = 0
        good_runs         = 0
        failing_since_s   = $null
        restarts_at_s     = @()
        incident          = $null
        degradation       = (Get-EmptyDegradation)
    }
}

function Get-EmptyDegradation {
    # Runs that saw the app degraded in a row, since when, and whether it was told.
    return @{ runs = 0; good_runs = 0; since_s = $null; alerted = $false }
}

function Get-HealthDecision {
    # What a run leads to: the next state, what to do now and why, and the exit code.
    param([hashtable]$State, [hashtable]$Checks, [hashtable]$Policy, [long]$NowS)
    $followed = Get-DegradationDecision -Degradation $State.degradation -Degraded $Checks.degraded -Policy $Policy -NowS $NowS
    $next = $State.Clone()
    $next.degradation = $followed.degradation
    $decision = Get-OutageDecision -State $next -Checks $Checks -Policy $Policy -NowS $NowS
    $decision.actions = @($decision.actions) + @($followed.actions)
    $decision.exit_code = Get-ExitCode -Decision $decision
    return $decision
}

function Get-DegradationDecision {
    # Told after as many runs as a failure takes, once; over after as many good ones. A run in which
    # nobody answered ($null) says nothing about it.
    param([hashtable]$Degradation, [object]$Degraded, [hashtable]$Policy, [long]$NowS)
    $next = $Degradation.Clone()
    if ($null -eq $Degraded) { return @{ degradation = $next; actions = @() } }
    $actions = @()
    if ($Degraded) {
        $next.runs = $Degradation.runs + 1
        $next.good_runs = 0
        if ($null -eq $next.since_s) { $next.since_s = $NowS }
        if (($next.runs -ge $Policy.failures) -and (-not $next.alerted)) {
            $next.alerted = $true
            $actions = @('alert-degraded')
        }
        return @{ degradation = $next; actions = $actions }
    }
    $next.runs = 0
    $next.good_runs = $Degradation.good_runs + 1
    if (($null -eq $next.since_s) -or ($next.good_runs -ge $Policy.successes)) {
        if ($next.alerted) { $actions = @('recovery-degraded') }
        $next = Get-EmptyDegradation
    }
    return @{ degradation = $next; actions = $actions }
}

function Get-ExitCode {
    # That of the outage, unless the last run that was answered saw the app degraded, and it was told.
    param([hashtable]$Decision)
    $degradation = $Decision.state.degradation
    if ($degradation.alerted -and ($degradation.runs -gt 0)) { return 3 }
    return $Decision.exit_code
}

function Get-OutageDecision {
    # What follows from which checks answered; an app that is degraded answers.
    param([hashtable]$State, [hashtable]$Checks, [hashtable]$Policy, [long]$NowS)
    $layer = Get-FailedLayer -Checks $Checks
    if ($layer -eq '') { return (Get-GoodRunDecision -State $State -Policy $Policy) }
    $next = $State.Clone()
    $next.good_runs = 0
    $next.internal_failures = $State.internal_failures + 1
    $next.external_failures = $State.external_failures + 1
    if ($layer -eq 'tunnel') { $next.internal_failures = 0 }
    if ($layer -eq 'app') { $next.external_failures = 0 }
    if ($null -eq $next.failing_since_s) { $next.failing_since_s = $NowS }
    $reached = ($next.internal_failures -ge $Policy.failures) -or ($next.external_failures -ge $Policy.failures)
    if (-not $reached) {
        $exitCode = 0
        if (($null -ne $next.incident) -and $next.incident.alerted) { $exitCode = 3 }
        return @{ state = $next; actions = @(); reason = ''; exit_code = $exitCode }
    }
    if ($null -eq $next.incident) {
        $next.incident = @{ since_s = $next.failing_since_s; layer = $layer; alerted = $false }
    }
    $next.incident = Get-IncidentWithLayer -Incident $next.incident -Layer $layer
    $recent = @()
    foreach ($at in $State.restarts_at_s) {
        if ([Math]::Abs($NowS - $at) -lt 3600) { $recent += $at }
    }
    if (-not $Policy.can_restart) { return (Get-AlertDecision -State $next -Reason 'no-command') }
    if (($Policy.restart_on -eq 'external') -and ($layer -ne 'tunnel')) {
        return (Get-AlertDecision -State $next -Reason 'other-layer')
    }
    if ($recent.Count -ge $Policy.max_restarts_per_hour) {
        return (Get-AlertDecision -State $next -Reason 'limit')
    }
    $next.restarts_at_s = @($recent) + @($NowS)
    $next.internal_failures = 0
    $next.external_failures = 0
    return @{ state = $next; actions = @('restart'); reason = 'failures'; exit_code = 0 }
}

function Get-RecheckDecision {
    # What follows when the checks were asked again after a restart.
    param([hashtable]$State, [hashtable]$Checks, [hashtable]$Policy)
    $layer = Get-FailedLayer -Checks $Checks
    if ($layer -eq '') {
        $decision = Get-GoodRunDecision -State $State -Policy $Policy
        $decision.exit_code = Get-ExitCode -Decision $decision
        return $decision
    }
    $next = $State.Clone()
    $next.incident = Get-IncidentWithLayer -Incident $State.incident -Layer $layer
    return (Get-AlertDecision -State $next -Reason 'still-failing')
}

function Get-GoodRunDecision {
    # An incident ends after enough good runs, told where its beginning was.
    param([hashtable]$State, [hashtable]$Policy)
    $next = Get-EmptyState
    $next.restarts_at_s = $State.restarts_at_s
    $next.incident = $State.incident
    $next.degradation = $State.degradation
    $next.good_runs = $State.good_runs + 1
    if ($next.good_runs -gt $Policy.successes) { $next.good_runs = $Policy.successes }
    $actions = @()
    if (($null -ne $State.incident) -and ($next.good_runs -ge $Policy.successes)) {
        $next.incident = $null
        if ($State.incident.alerted) { $actions = @('recovery') }
    }
    return @{ state = $next; actions = $actions; reason = ''; exit_code = 0 }
}

function Get-IncidentWithLayer {
    # An incident that nobody was told of yet takes the layer of now.
    param([hashtable]$Incident, [string]$Layer)
    $copy = $Incident.Clone()
    if (-not $copy.alerted) { $copy.layer = $Layer }
    return $copy
}

function Get-AlertDecision {
    # One alert an incident; the exit code says that it lasts.
    param([hashtable]$State, [string]$Reason)
    $actions = @()
    if (-not $State.incident.alerted) { $actions = @('alert') }
    $next = $State.Clone()
    $next.incident = $State.incident.Clone()
    $next.incident.alerted = $true
    return @{ state = $next; actions = $actions; reason = $Reason; exit_code = 3 }
}

function Get-ForgetfulDecision {
    # What a run without any memory leads to: one failure has to do, and something is done in the
    # first minute of an hour alone, so that no restart and no alert comes twice in one.
    param([hashtable]$Checks, [hashtable]$Policy, [long]$NowS)
    $own = $Policy.Clone()
    $own.failures = 1
    $decision = Get-HealthDecision -State (Get-EmptyState) -Checks $Checks -Policy $own -NowS $NowS
    if (Test-HourBegins -NowS $NowS) { return $decision }
    if ($decision.actions.Count -gt 0) { $decision.exit_code = 3 }
    $decision.actions = @()
    return $decision
}

function Test-HourBegins {
    param([long]$NowS)
    return ($NowS % 3600) -lt 60
}

# --- clock and words ---------------------------------------------------------------------------------------

function Get-NowS {
    return [DateTimeOffset]::UtcNow.ToUnixTimeSeconds()
}

function Get-UtcText {
    param([long]$Seconds)
    $moment = [DateTimeOffset]::FromUnixTimeSeconds($Seconds)
    return $moment.UtcDateTime.ToString('yyyy-MM-ddTHH:mm:ssZ', [Globalization.CultureInfo]::InvariantCulture)
}

function Get-AlertText {
    param([hashtable]$Incident, [string]$Reason, [object[]]$Results)
    $layers = @{
        app    = 'the app is down'
        tunnel = 'the tunnel is down, the app answers'
        both   = 'app and external address are both down'
    }
    $reasons = @{
        'still-failing' = 'still failing after a restart'
        'no-command'    = 'nothing to restart is configured'
        'other-layer'   = 'a restart of the tunnel would not help'
        'limit'         = 'no more restarts within this hour'
    }
    $seen = @($Results | ForEach-Object { '{0} {1}: {2}' -f $_.name, $_.url, $_.detail }) -join '; '
    $since = Get-UtcText -Seconds $Incident.since_s
    return 'PillSnap ALERT: {0} ({1}); {2} [{3}, since {4}]' -f $layers[$Incident.layer], $reasons[$Reason], $seen, $env:COMPUTERNAME, $since
}

function Get-RecoveryText {
    param([hashtable]$Incident, [long]$NowS)
    $layers = @{ app = 'the app was'; tunnel = 'the tunnel was'; both = 'app and external address were' }
    $minutes = [Math]::Max(0, [Math]::Round(($NowS - $Incident.since_s) / 60))
    $since = Get-UtcText -Seconds $Incident.since_s
    return 'PillSnap RECOVERED: all checks answer again; {0} down for {1} min [{2}, since {3}]' -f $layers[$Incident.layer], $minutes, $env:COMPUTERNAME, $since
}

function Get-DegradedAlertText {
    param([hashtable]$Degradation, [object[]]$Results)
    $seen = @($Results | ForEach-Object { '{0} {1}: {2}' -f $_.name, $_.url, $_.detail }) -join '; '
    $since = Get-UtcText -Seconds $Degradation.since_s
    $what = 'another model is served than should be'
    $why = 'nothing is restarted for it: look at api.err'
    return 'PillSnap ALERT: {0} ({1}); {2} [{3}, since {4}]' -f $what, $why, $seen, $env:COMPUTERNAME, $since
}

function Get-DegradedRecoveryText {
    param([hashtable]$Degradation, [long]$NowS)
    $minutes = [Math]::Max(0, [Math]::Round(($NowS - $Degradation.since_s) / 60))
    $since = Get-UtcText -Seconds $Degradation.since_s
    $what = 'the model that should be is served again; it was another for'
    return 'PillSnap RECOVERED: {0} {1} min [{2}, since {3}]' -f $what, $minutes, $env:COMPUTERNAME, $since
}

function Get-ErrorText {
    # The innermost message on one line; a Task wraps the real error.
    param([System.Management.Automation.ErrorRecord]$ErrorRecord)
    $inner = $ErrorRecord.Exception
    while ($null -ne $inner.InnerException) { $inner = $inner.InnerException }
    return ($inner.Message -replace '\s+', ' ').Trim()
}

function Test-Held {
    # Whether it failed because another process has the file open: Windows' two numbers, and flock's.
    param([System.Management.Automation.ErrorRecord]$ErrorRecord)
    $inner = $ErrorRecord.Exception
    while ($null -ne $inner.InnerException) { $inner = $inner.InnerException }
    return ($inner -is [System.IO.IOException]) -and (@(11, 32, 33) -contains ($inner.HResult -band 65535))
}

# --- state: whole or not at all, and a second time where no full disk and no other program is ------

function ConvertTo-WatchMemory {
    # The state from its JSON text; a missing key is an error, but for what earlier builds lacked.
    param([string]$Json)
    $raw = $Json | ConvertFrom-Json
    if ($raw.schema -ne 'health-watch-windows/1') { throw "its schema is '$($raw.schema)'" }
    $state = Get-EmptyState
    $state.internal_failures = [int]$raw.state.internal_failures
    $state.external_failures = [int]$raw.state.external_failures
    $state.good_runs = [int]$raw.state.good_runs
    if ($null -ne $raw.state.failing_since_s) { $state.failing_since_s = [long]$raw.state.failing_since_s }
    $state.restarts_at_s = @($raw.state.restarts_at_s | ForEach-Object { [long]$_ })
    if ($null -ne $raw.state.incident) {
        $state.incident = @{
            since_s = [long]$raw.state.incident.since_s
            layer   = [string]$raw.state.incident.layer
            alerted = [bool]$raw.state.incident.alerted
        }
    }
    if ($null -ne $raw.state.PSObject.Properties['degradation']) {
        $state.degradation.runs = [int]$raw.state.degradation.runs
        $state.degradation.good_runs = [int]$raw.state.degradation.good_runs
        if ($null -ne $raw.state.degradation.since_s) { $state.degradation.since_s = [long]$raw.state.degradation.since_s }
        $state.degradation.alerted = [bool]$raw.state.degradation.alerted
    }
    $memory = @{ state = $state; undelivered = @(); kept_at_s = [long]0; alone = $false; trouble_told_s = [long]0 }
    foreach ($name in @('kept_at_s', 'alone', 'trouble_told_s')) {
        if ($null -ne $raw.PSObject.Properties[$name]) { $memory[$name] = $raw.$name }
    }
    $memory.undelivered = @($raw.undelivered | ForEach-Object { ConvertTo-Notice -Raw $_ })
    return $memory
}

function ConvertTo-Notice {
    # A notice and who did not take it yet; in earlier builds that was the webhook alone.
    param([object]$Raw)
    $notice = @{ event = [string]$Raw.event; text = [string]$Raw.text; at_s = [long]0; to_event_log = $false; to_webhook = $true }
    foreach ($name in @('at_s', 'to_event_log', 'to_webhook')) {
        if ($null -ne $Raw.PSObject.Properties[$name]) { $notice[$name] = $Raw.$name }
    }
    return $notice
}

function Get-SecondPath {
    # Where the second memory lies: a value of the account's own registry, for nobody else writes
    # there and no full disk and no open file stands in the way; elsewhere a temporary file.
    param([string]$Path)
    if (Test-Windows) { return 'HKEY_CURRENT_USER\Software\PillSnap' }
    return Join-Path -Path ([System.IO.Path]::GetTempPath()) -ChildPath ('pillsnap' + ($Path -replace '[^A-Za-z0-9]+', '-'))
}

function Test-Windows {
    return [Environment]::OSVersion.Platform -eq 'Win32NT'
}

function Read-SecondMemory {
    # The JSON text, or '' where there is none.
    param([string]$Path)
    $place = Get-SecondPath -Path $Path
    if (Test-Windows) { return [string][Microsoft.Win32.Registry]::GetValue($place, $Path, '') }
    if (-not [System.IO.File]::Exists($place)) { return '' }
    return [System.IO.File]::ReadAllText($place)
}

function Write-SecondMemory {
    param([string]$Path, [string]$Json)
    $place = Get-SecondPath -Path $Path
    if (Test-Windows) {
        [Microsoft.Win32.Registry]::SetValue($place, $Path, $Json)
    }
    else {
        [System.IO.File]::WriteAllText($place, $Json)
    }
}

function Read-StateText {
    # The JSON text of the state, tried again for two seconds where another program has it open.
    param([string]$Path)
    $watch = [System.Diagnostics.Stopwatch]::StartNew()
    while ($true) {
        try {
            return [System.IO.File]::ReadAllText($Path)
        }
        catch {
            if ((-not (Test-Held -ErrorRecord $_)) -or ($watch.Elapsed.TotalSeconds -ge 2)) { throw }
        }
        Start-Sleep -Milliseconds 200
    }
}

function Get-SecondMemory {
    # What was kept the second time, or $null.
    param([string]$Path)
    try {
        return (ConvertTo-WatchMemory -Json (Read-SecondMemory -Path $Path))
    }
    catch {
        return $null
    }
}

function Read-WatchMemory {
    # What the last run left, and a note where that could not be read. The second memory counts where
    # the first cannot be read, and where the last run, within an hour, could write no other.
    param([string]$Path)
    $fresh = @{ state = (Get-EmptyState); undelivered = @() }
    $second = Get-SecondMemory -Path $Path
    $isLast = ($null -ne $second) -and $second.alone -and ([Math]::Abs((Get-NowS) - $second.kept_at_s) -lt 3600)
    if (-not [System.IO.File]::Exists($Path)) {
        if ($isLast) { return @{ memory = $second; note = '' } }
        return @{ memory = $fresh; note = '' }
    }
    $held = $false
    try {
        $memory = ConvertTo-WatchMemory -Json (Read-StateText -Path $Path)
        if ($isLast -and ($second.kept_at_s -ge $memory.kept_at_s)) { $memory = $second }
        return @{ memory = $memory; note = '' }
    }
    catch {
        $held = Test-Held -ErrorRecord $_
        $note = "the state in $Path cannot be read ($(Get-ErrorText -ErrorRecord $_)); "
    }
    if ($null -ne $second) {
        $fresh = $second
        $note += "what $(Get-SecondPath -Path $Path) holds counts"
    }
    else {
        $note += 'counting starts anew'
    }
    if ($held) { return @{ memory = $fresh; note = $note } }
    try {
        [System.IO.File]::Copy($Path, "$Path.damaged", $true)
    }
    catch {
        $note = "$note; it could not be set aside"
    }
    return @{ memory = $fresh; note = $note }
}

function Save-WatchMemory {
    # Written beside itself, flushed to disk, then renamed: a killed run leaves the old one whole. A
    # second time in another place. What cannot be kept stops nothing: `trouble` says why, and `lost`
    # whether the next run will know nothing of this one.
    param([string]$Path, [hashtable]$Memory)
    $content = @{
        schema         = 'health-watch-windows/1'
        state          = $Memory.state
        undelivered    = @($Memory.undelivered)
        trouble_told_s = [long]$Memory['trouble_told_s']
        kept_at_s      = (Get-NowS)
        alone          = $false
    }
    $bytes = [System.Text.Encoding]::UTF8.GetBytes((ConvertTo-Json -InputObject $content -Depth 6))
    $temporary = "$Path.tmp"
    $watch = [System.Diagnostics.Stopwatch]::StartNew()
    $why = ''
    while ($true) {
        try {
            $stream = [System.IO.File]::Open($temporary, [System.IO.FileMode]::Create, [System.IO.FileAccess]::Write, [System.IO.FileShare]::None)
            try {
                $stream.Write($bytes, 0, $bytes.Length)
                $stream.Flush($true)
            }
            finally {
                $stream.Dispose()
            }
            if ([System.IO.File]::Exists($Path)) {
                # A plain $null would arrive as an empty string.
                [System.IO.File]::Replace($temporary, $Path, [NullString]::Value)
            }
            else {
                [System.IO.File]::Move($temporary, $Path)
            }
            break
        }
        catch {
            $why = Get-ErrorText -ErrorRecord $_
            # Another program may have it open; a run waits for that once.
            if ((-not (Test-Held -ErrorRecord $_)) -or $Memory['waited'] -or ($watch.Elapsed.TotalSeconds -ge 2)) { break }
        }
        $why = ''
        Start-Sleep -Milliseconds 200
    }
    $content.alone = ($why -ne '')
    if ($content.alone) {
        $Memory.waited = $true
        $Memory.trouble = "the state in $Path cannot be written ($why); it is kept in $(Get-SecondPath -Path $Path)"
    }
    $Memory.lost = $false
    try {
        Write-SecondMemory -Path $Path -Json (ConvertTo-Json -InputObject $content -Depth 6)
    }
    catch {
        if (-not $content.alone) { return }
        $Memory.lost = $true
        $Memory.trouble = "nothing can be remembered: neither $Path ($why) nor $(Get-SecondPath -Path $Path) ($(Get-ErrorText -ErrorRecord $_)) can be written; something is done in the first minute of an hour alone"
    }
}

function Open-RunLock {
    # A file that this process alone has open, or $null where another run has it; Windows lets go of
    # it when the process ends.
    param([string]$Path)
    try {
        return [System.IO.File]::Open($Path, [System.IO.FileMode]::OpenOrCreate, [System.IO.FileAccess]::ReadWrite, [System.IO.FileShare]::None)
    }
    catch {
        if (Test-Held -ErrorRecord $_) { return $null }
        throw
    }
}

# --- what is said --------------------------------------------------------------------------------

function Write-WatchLog {
    param([hashtable]$Settings, [string]$Text)
    try {
        $file = New-Object System.IO.FileInfo($Settings.LogPath)
        if ($file.Exists -and ($file.Length -gt ($Settings.MaxLogMB * 1MB))) {
            [System.IO.File]::Delete("$($Settings.LogPath).1")
            [System.IO.File]::Move($Settings.LogPath, "$($Settings.LogPath).1")
        }
        $now = Get-UtcText -Seconds (Get-NowS)
        $line = $Text -replace '[\r\n]+', ' '
        [System.IO.File]::AppendAllText($Settings.LogPath, "$now $line`r`n")
    }
    catch {
        $Settings['log_trouble'] = "cannot append to $($Settings.LogPath): $(Get-ErrorText -ErrorRecord $_)"
        Write-Console -Text $Settings['log_trouble'] -IsError $true
    }
}

function Write-Console {
    # Nobody may be there to read it: that stops nothing.
    param([string]$Text, [bool]$IsError)
    try {
        if ($IsError) { [Console]::Error.WriteLine($Text) } else { [Console]::Out.WriteLine($Text) }
    }
    catch {
        $null = $_
    }
}

function Write-Trouble {
    # For a person: on the console and in the log.
    param([hashtable]$Settings, [string]$Text)
    Write-Console -Text $Text -IsError $true
    Write-WatchLog -Settings $Settings -Text $Text
}

function Write-RunLine {
    # What a run saw and did: for whoever runs it by hand, and for the log.
    param([hashtable]$Settings, [string]$Text)
    Write-Console -Text $Text -IsError $false
    Write-WatchLog -Settings $Settings -Text $Text
}

function Write-RestartResult {
    param([hashtable]$Settings, [hashtable]$Restart)
    if ($Restart.ok) {
        Write-WatchLog -Settings $Settings -Text "restart: $($Restart.detail)"
    }
    else {
        Write-Trouble -Settings $Settings -Text "restart failed: $($Restart.detail)"
    }
}

function Write-EventEntry {
    param([string]$Source, [string]$Text, [string]$Kind, [int]$Number)
    if (-not [System.Diagnostics.EventLog]::SourceExists($Source)) {
        [System.Diagnostics.EventLog]::CreateEventSource($Source, 'Application')
    }
    [System.Diagnostics.EventLog]::WriteEntry($Source, $Text, [System.Diagnostics.EventLogEntryType]$Kind, $Number)
}

function Write-AlertEvent {
    # Into the Windows event log; Write-EventLog is no part of PowerShell 7. Returns '' or why not,
    # whatever goes wrong.
    param([string]$Source, [string]$Text, [bool]$IsAlert, [bool]$IsTrouble = $false)
    $kind = 'Information'
    $number = 101
    if ($IsAlert) {
        $kind = 'Error'
        $number = 100
    }
    if ($IsTrouble) {
        $kind = 'Warning'
        $number = 102
    }
    try {
        Write-EventEntry -Source $Source -Text $Text -Kind $kind -Number $number
        return ''
    }
    catch {
        $why = Get-ErrorText -ErrorRecord $_
    }
    try {
        $quoted = $Text -replace '"', "'"
        $arguments = '/T {0} /ID {1} /L APPLICATION /SO "{2}" /D "{3}"' -f $kind.ToUpperInvariant(), $number, $Source, $quoted
        $run = Invoke-Program -Name 'eventcreate.exe' -Arguments $arguments -TimeoutSeconds 5
        if ($run.ok) { return '' }
        return "event log: $why; eventcreate: $($run.detail)"
    }
    catch {
        return "event log: $why; eventcreate: $(Get-ErrorText -ErrorRecord $_)"
    }
}

function Send-Notice {
    # To the webhook as JSON; `text` and `content` are what chat tools show. Returns '' or why not.
    param([string]$Address, [hashtable]$Notice, [int]$TimeoutSeconds)
    $client = $null
    try {
        $body = @{ event = $Notice.event; text = $Notice.text; content = $Notice.text; host = $env:COMPUTERNAME }
        $json = ConvertTo-Json -InputObject $body -Compress
        $client = Get-HttpClient -TimeoutSeconds $TimeoutSeconds
        $content = New-Object System.Net.Http.StringContent($json, [System.Text.Encoding]::UTF8, 'application/json')
        $task = $client.PostAsync($Address, $content)
        if (-not $task.Wait($TimeoutSeconds * 1000)) { return 'no answer in time' }
        $status = [int]$task.Result.StatusCode
        if (($status -ge 200) -and ($status -lt 300)) { return '' }
        return "HTTP $status"
    }
    catch {
        return (Get-ErrorText -ErrorRecord $_).Replace($Address, 'the webhook')
    }
    finally {
        if ($null -ne $client) { $client.Dispose() }
    }
}

# --- asking --------------------------------------------------------------------------------------

function Get-HttpClient {
    # The same class in Windows PowerShell 5.1 and in 7: no status is an error, no redirect followed.
    param([int]$TimeoutSeconds)
    Add-Type -AssemblyName System.Net.Http
    $tls = [System.Net.ServicePointManager]::SecurityProtocol -bor [System.Net.SecurityProtocolType]::Tls12
    [System.Net.ServicePointManager]::SecurityProtocol = $tls
    $handler = New-Object System.Net.Http.HttpClientHandler
    $handler.AllowAutoRedirect = $false
    $handler.UseProxy = $false
    $client = New-Object System.Net.Http.HttpClient($handler)
    $client.Timeout = [TimeSpan]::FromSeconds($TimeoutSeconds)
    $client.MaxResponseContentBufferSize = 65536
    return $client
}

function Get-Judgement {
    # Up is 200 with JSON whose status is ok or degraded: a login page answers 200 too.
    param([int]$Status, [string]$Body)
    if ($Status -ne 200) { return @{ ok = $false; degraded = $false; detail = "HTTP $Status" } }
    try {
        $answer = $Body | ConvertFrom-Json
        $said = $answer.status
    }
    catch {
        return @{ ok = $false; degraded = $false; detail = 'HTTP 200, no JSON with a status' }
    }
    # `true` and 'OK' compare as equal to 'ok'.
    if (($said -is [string]) -and ($said -ceq 'degraded')) {
        return @{ ok = $true; degraded = $true; detail = "HTTP 200, $(Get-DegradedText -Answer $answer)" }
    }
    if (($said -isnot [string]) -or ($said -cne 'ok')) { return @{ ok = $false; degraded = $false; detail = "HTTP 200, status '$said'" } }
    return @{ ok = $true; degraded = $false; detail = 'HTTP 200' }
}

function Get-DegradedText {
    # What a degraded app says of itself, on one line: tags and a reason, where it gives them.
    param([object]$Answer)
    $words = @{ wanted = 'unknown'; served = 'none'; reason = '' }
    $known = $false
    foreach ($name in @('wanted', 'served', 'reason')) {
        $property = $Answer.PSObject.Properties[$name]
        if ($null -eq $property) { continue }
        if ($name -ne 'reason') { $known = $true }
        if ($property.Value -isnot [string]) { continue }
        $text = ($property.Value -replace '\s+', ' ').Trim()
        if ($text.Length -gt 80) { $text = $text.Substring(0, 80) }
        if ($text -ne '') { $words[$name] = $text }
    }
    if (-not $known) { return 'degraded' }
    $told = "degraded: wanted $($words.wanted), serves $($words.served)"
    if ($words.reason -ne '') { $told = "$told ($($words.reason))" }
    return $told
}

function Get-CheckResult {
    param([string]$Name, [string]$Url, [int]$TimeoutSeconds)
    $result = @{ name = $Name; url = $Url; ok = $false; degraded = $false; detail = "no answer within $TimeoutSeconds s" }
    $client = $null
    $watch = [System.Diagnostics.Stopwatch]::StartNew()
    try {
        $client = Get-HttpClient -TimeoutSeconds $TimeoutSeconds
        $task = $client.GetAsync($Url)
        if ($task.Wait($TimeoutSeconds * 1000)) {
            $answer = $task.Result
            $body = $answer.Content.ReadAsStringAsync().Result
            $judgement = Get-Judgement -Status ([int]$answer.StatusCode) -Body $body
            $result.ok = $judgement.ok
            $result.degraded = $judgement.degraded
            $result.detail = $judgement.detail
        }
    }
    catch {
        # 5.1 and 7 throw different types, and messages are translated: the clock tells a deadline.
        $why = Get-ErrorText -ErrorRecord $_
        if ($watch.Elapsed.TotalSeconds -lt $TimeoutSeconds) { $result.detail = $why }
    }
    finally {
        if ($null -ne $client) { $client.Dispose() }
    }
    return $result
}

function Get-AllResult {
    param([hashtable]$Settings)
    $results = @(Get-CheckResult -Name 'internal' -Url $Settings.InternalUrl -TimeoutSeconds $Settings.TimeoutSeconds)
    if ($Settings.ExternalUrl -ne '') {
        $results += Get-CheckResult -Name 'external' -Url $Settings.ExternalUrl -TimeoutSeconds $Settings.TimeoutSeconds
    }
    return $results
}

function ConvertTo-CheckSet {
    param([object[]]$Results)
    # Degraded is $null where the app did not answer anywhere.
    $checks = @{ internal = $false; external = $null; degraded = $null }
    foreach ($result in $Results) {
        $checks[$result.name] = $result.ok
        if ($result.ok) { $checks.degraded = $result.degraded -or ($checks.degraded -eq $true) }
    }
    return $checks
}

# --- restarting ----------------------------------------------------------------------------------

function Get-SystemProgram {
    # Windows' own, by its full path: a task of the system runs nothing that lies nearer.
    param([string]$Name)
    return Join-Path -Path $env:SystemRoot -ChildPath "System32\$Name"
}

function Invoke-Program {
    # Runs a program with a deadline; one that hangs is ended with all that it started.
    param([string]$Name, [string]$Arguments, [int]$TimeoutSeconds)
    $info = New-Object System.Diagnostics.ProcessStartInfo
    $info.FileName = Get-SystemProgram -Name $Name
    $info.Arguments = $Arguments
    $info.UseShellExecute = $false
    $info.CreateNoWindow = $true
    $info.RedirectStandardOutput = $true
    $info.RedirectStandardError = $true
    try {
        $process = [System.Diagnostics.Process]::Start($info)
    }
    catch {
        return @{ ok = $false; detail = "cannot be run: $(Get-ErrorText -ErrorRecord $_)" }
    }
    $out = $process.StandardOutput.ReadToEndAsync()
    $err = $process.StandardError.ReadToEndAsync()
    if (-not $process.WaitForExit($TimeoutSeconds * 1000)) {
        Invoke-TreeKill -ProcessId $process.Id
        return @{ ok = $false; detail = "hung and was ended after $TimeoutSeconds s" }
    }
    if ($process.ExitCode -eq 0) { return @{ ok = $true; detail = 'exit 0' } }
    $said = ''
    foreach ($task in @($out, $err)) {
        # A daemon left behind may keep the pipe open: it is not waited for.
        if ($task.Wait(2000)) { $said = "$said $($task.Result)" }
    }
    $said = ($said -replace '\s+', ' ').Trim()
    if ($said.Length -gt 200) { $said = $said.Substring($said.Length - 200) }
    return @{ ok = $false; detail = "exit $($process.ExitCode) $said".Trim() }
}

function Invoke-TreeKill {
    # By its id, never by a name.
    param([int]$ProcessId)
    $info = New-Object System.Diagnostics.ProcessStartInfo
    $info.FileName = Get-SystemProgram -Name 'taskkill.exe'
    $info.Arguments = "/PID $ProcessId /T /F"
    $info.UseShellExecute = $false
    $info.CreateNoWindow = $true
    $killer = [System.Diagnostics.Process]::Start($info)
    if (-not $killer.WaitForExit(10000)) { $killer.Kill() }
}

function Get-OwnProcessId {
    # The process of a service that shares it with no other; 0 where there is none.
    param([string]$ServiceName)
    $found = Get-CimInstance -ClassName Win32_Service -Filter "Name='$ServiceName'" -OperationTimeoutSec 15
    if (($null -eq $found) -or ($found.ServiceType -ne 'Own Process')) { return 0 }
    return [int]$found.ProcessId
}

function Test-ServiceReached {
    param([string]$ServiceName, [string]$Status, [int]$TimeoutSeconds)
    $watch = [System.Diagnostics.Stopwatch]::StartNew()
    while ($true) {
        if ((Get-Service -Name $ServiceName).Status -eq $Status) { return $true }
        if ($watch.Elapsed.TotalSeconds -ge $TimeoutSeconds) { return $false }
        Start-Sleep -Milliseconds 500
    }
}

function Invoke-ServiceRestart {
    # Stop, wait, end the service's process by its id if it hangs, start, wait.
    param([string]$ServiceName, [int]$TimeoutSeconds)
    $note = ''
    $null = Invoke-Program -Name 'sc.exe' -Arguments "stop `"$ServiceName`"" -TimeoutSeconds $TimeoutSeconds
    if (-not (Test-ServiceReached -ServiceName $ServiceName -Status 'Stopped' -TimeoutSeconds $TimeoutSeconds)) {
        $id = Get-OwnProcessId -ServiceName $ServiceName
        if ($id -eq 0) { return @{ ok = $false; detail = 'the stop hung, and the service has no process of its own' } }
        Invoke-TreeKill -ProcessId $id
        $note = "the stop hung, process $id was ended; "
        if (-not (Test-ServiceReached -ServiceName $ServiceName -Status 'Stopped' -TimeoutSeconds 15)) {
            # Windows may have started it again by itself: that is as good.
            if ((Get-Service -Name $ServiceName).Status -ne 'Running') { return @{ ok = $false; detail = "${note}it did not stop" } }
        }
    }
    $start = Invoke-Program -Name 'sc.exe' -Arguments "start `"$ServiceName`"" -TimeoutSeconds $TimeoutSeconds
    if (Test-ServiceReached -ServiceName $ServiceName -Status 'Running' -TimeoutSeconds $TimeoutSeconds) {
        return @{ ok = $true; detail = "${note}running" }
    }
    return @{ ok = $false; detail = "${note}it did not start: $($start.detail)" }
}

function Invoke-Restart {
    param([hashtable]$Settings)
    try {
        if ($Settings.RestartCommand -ne '') {
            $arguments = '/d /s /c "' + $Settings.RestartCommand + '"'
            return (Invoke-Program -Name 'cmd.exe' -Arguments $arguments -TimeoutSeconds $Settings.RestartTimeoutSeconds)
        }
        return (Invoke-ServiceRestart -ServiceName $Settings.ServiceName -TimeoutSeconds $Settings.RestartTimeoutSeconds)
    }
    catch {
        return @{ ok = $false; detail = (Get-ErrorText -ErrorRecord $_) }
    }
}

function Get-SettledResult {
    # Asks again until everything answers or the time to settle is over.
    param([hashtable]$Settings)
    $watch = [System.Diagnostics.Stopwatch]::StartNew()
    while ($true) {
        $results = @(Get-AllResult -Settings $Settings)
        $layer = Get-FailedLayer -Checks (ConvertTo-CheckSet -Results $results)
        if (($layer -eq '') -or ($watch.Elapsed.TotalSeconds -ge $Settings.SettleSeconds)) { return $results }
        Start-Sleep -Seconds 1
    }
}

# --- one run -------------------------------------------------------------------------------------

function Send-Undelivered {
    # In order, to each that has not taken it yet; what fails is tried again by the next run.
    param([hashtable]$Settings, [hashtable]$Memory)
    Send-ToEventLog -Settings $Settings -Waiting @($Memory.undelivered | ForEach-Object { if ($_.to_event_log) { $_ } })
    Send-ToWebhook -Settings $Settings -Waiting @($Memory.undelivered | ForEach-Object { if ($_.to_webhook) { $_ } })
    $Memory.undelivered = @($Memory.undelivered | ForEach-Object { if ($_.to_event_log -or $_.to_webhook) { $_ } })
    return $Memory
}

function Send-ToEventLog {
    # Given up after an hour: an account may not be allowed to write there at all.
    param([hashtable]$Settings, [object[]]$Waiting)
    foreach ($notice in $Waiting) {
        $failure = Write-AlertEvent -Source $Settings.EventSource -Text $notice.text -IsAlert ($notice.event -eq 'alert') -IsTrouble ($notice.event -eq 'trouble')
        $isOver = [Math]::Abs((Get-NowS) - $notice.at_s) -ge 3600
        $notice.to_event_log = ($failure -ne '') -and (-not $isOver)
        if ($failure -eq '') { continue }
        Write-Trouble -Settings $Settings -Text "$failure; tried again by the next run for an hour"
        break
    }
}

function Send-ToWebhook {
    param([hashtable]$Settings, [object[]]$Waiting)
    if ($Settings.Webhook -eq '') {
        foreach ($notice in $Waiting) { $notice.to_webhook = $false }
        return
    }
    if ($Waiting.Count -eq 0) { return }
    $name = $Settings.Webhook.Substring('env:'.Length)
    $address = [Environment]::GetEnvironmentVariable($name)
    if ([string]::IsNullOrEmpty($address)) { $address = [Environment]::GetEnvironmentVariable($name, 'Machine') }
    if ([string]::IsNullOrEmpty($address)) {
        Write-Trouble -Settings $Settings -Text "webhook: the variable $name is not set"
        return
    }
    foreach ($notice in $Waiting) {
        $failure = Send-Notice -Address $address -Notice $notice -TimeoutSeconds $Settings.TimeoutSeconds
        if ($failure -ne '') {
            Write-Trouble -Settings $Settings -Text "webhook: $failure; tried again by the next run"
            return
        }
        $notice.to_webhook = $false
    }
}

function Write-Notice {
    # Console and log; the event log and the webhook follow from the state.
    param([hashtable]$Settings, [hashtable]$Notice)
    Write-Trouble -Settings $Settings -Text $Notice.text
}

function Get-TroubleNotice {
    # What goes wrong in the watch itself, once an hour; its times are all that a notice of it needs.
    param([hashtable]$Settings, [hashtable]$Memory, [long]$NowS)
    $found = @()
    foreach ($text in @($Memory['trouble'], $Settings['log_trouble'])) {
        if (($null -ne $text) -and ($text -ne '')) { $found += $text }
    }
    if ($found.Count -eq 0) { return @() }
    if ($Memory.lost) {
        if (-not (Test-HourBegins -NowS $NowS)) { return @() }
    }
    elseif ([Math]::Abs($NowS - [long]$Memory['trouble_told_s']) -lt 3600) {
        return @()
    }
    $Memory.trouble_told_s = $NowS
    return @(@{ event = 'trouble'; text = 'PillSnap TROUBLE: {0} [{1}]' -f ($found -join '; '), $env:COMPUTERNAME })
}

function Get-DueNotice {
    # What people are told of a run, in order; `Before` is the state that it began with.
    param([string[]]$Actions, [hashtable]$Decision, [hashtable]$Before, [object[]]$Results, [long]$NowS)
    $due = @()
    if ($Actions -contains 'alert') {
        $text = Get-AlertText -Incident $Decision.state.incident -Reason $Decision.reason -Results $Results
        $due += @{ event = 'alert'; text = $text }
    }
    if ($Actions -contains 'recovery') {
        $due += @{ event = 'recovery'; text = (Get-RecoveryText -Incident $Before.incident -NowS $NowS) }
    }
    if ($Actions -contains 'alert-degraded') {
        $text = Get-DegradedAlertText -Degradation $Decision.state.degradation -Results $Results
        $due += @{ event = 'alert'; text = $text }
    }
    if ($Actions -contains 'recovery-degraded') {
        $due += @{ event = 'recovery'; text = (Get-DegradedRecoveryText -Degradation $Before.degradation -NowS $NowS) }
    }
    return $due
}

function Invoke-HealthRun {
    # Asks, counts, restarts and tells; returns the exit code.
    param([hashtable]$Settings)
    $read = Read-WatchMemory -Path $Settings.StatePath
    if ($read.note -ne '') { Write-Trouble -Settings $Settings -Text $read.note }
    $memory = $read.memory
    $memory.trouble = $read.note
    $memory.lost = $false
    $before = $memory.state
    $results = @(Get-AllResult -Settings $Settings)
    $now = Get-NowS
    $decision = Get-HealthDecision -State $memory.state -Checks (ConvertTo-CheckSet -Results $results) -Policy $Settings.Policy -NowS $now
    $memory.state = $decision.state
    # Before anything is restarted: a run that is killed meanwhile has counted it.
    Save-WatchMemory -Path $Settings.StatePath -Memory $memory
    if ($memory.lost) {
        $before = Get-EmptyState
        $decision = Get-ForgetfulDecision -Checks (ConvertTo-CheckSet -Results $results) -Policy $Settings.Policy -NowS $now
    }
    $done = @($decision.actions)
    if ($done -contains 'restart') {
        $restart = Invoke-Restart -Settings $Settings
        Write-RestartResult -Settings $Settings -Restart $restart
        $results = @(Get-SettledResult -Settings $Settings)
        $decision = Get-RecheckDecision -State $decision.state -Checks (ConvertTo-CheckSet -Results $results) -Policy $Settings.Policy
        $done += $decision.actions
    }
    $memory.state = $decision.state
    $notices = @(Get-DueNotice -Actions $done -Decision $decision -Before $before -Results $results -NowS $now)
    Write-RunLine -Settings $Settings -Text (Get-RunLine -Results $results -Actions $done -State $decision.state)
    $notices += @(Get-TroubleNotice -Settings $Settings -Memory $memory -NowS $now)
    foreach ($notice in $notices) {
        $notice.at_s = $now
        $notice.to_event_log = $true
        $notice.to_webhook = $true
    }
    $memory.undelivered = @(@($memory.undelivered) + $notices | Select-Object -Last 20)
    Save-WatchMemory -Path $Settings.StatePath -Memory $memory
    foreach ($notice in $notices) { Write-Notice -Settings $Settings -Notice $notice }
    $memory = Send-Undelivered -Settings $Settings -Memory $memory
    Save-WatchMemory -Path $Settings.StatePath -Memory $memory
    return $decision.exit_code
}

function Get-RunLine {
    param([object[]]$Results, [string[]]$Actions, [hashtable]$State)
    $parts = @($Results | ForEach-Object { '{0} {1} ({2})' -f $_.name, @('FAILED', 'ok', 'DEGRADED')[[int]$_.ok + [int]$_.degraded], $_.detail })
    $layer = Get-FailedLayer -Checks (ConvertTo-CheckSet -Results $Results)
    if ($layer -ne '') { $parts += "layer $layer" }
    if (($State.internal_failures + $State.external_failures) -gt 0) { $parts += "failures $($State.internal_failures)/$($State.external_failures)" }
    if ($Actions.Count -gt 0) { $parts += $Actions -join ', ' }
    return $parts -join ' | '
}

function Invoke-HealthWatch {
    # One run under its lock; returns the exit code.
    param([hashtable]$Settings)
    $lock = $null
    try {
        try {
            foreach ($path in @($Settings.LogPath, $Settings.StatePath)) {
                $null = [System.IO.Directory]::CreateDirectory([System.IO.Path]::GetDirectoryName($path))
            }
            $lock = Open-RunLock -Path "$($Settings.StatePath).lock"
            $isBusy = $null -eq $lock
        }
        catch {
            # Told with the state, which lies beside. Windows starts no task beside itself.
            $isBusy = $false
        }
        if ($isBusy) {
            Write-Console -Text "error: $($Settings.StatePath).lock is held by another run" -IsError $true
            return 6
        }
        return (Invoke-HealthRun -Settings $Settings)
    }
    catch {
        Write-Trouble -Settings $Settings -Text "error: $(Get-ErrorText -ErrorRecord $_)"
        return 1
    }
    finally {
        if ($null -ne $lock) { $lock.Dispose() }
    }
}

if ($MyInvocation.InvocationName -ne '.') {
    foreach ($url in @($InternalUrl, $ExternalUrl)) {
        if (($url -ne '') -and ($url -notmatch '^https?://[^/\s]+')) {
            [Console]::Error.WriteLine("error: $url is no address; expected http://host/path or https://host/path")
            exit 2
        }
    }
    if ($InternalUrl -eq '') {
        [Console]::Error.WriteLine('error: -InternalUrl is empty; expected the address of the app')
        exit 2
    }
    $session = $ExecutionContext.SessionState.Path
    $settings = @{
        InternalUrl           = $InternalUrl
        ExternalUrl           = $ExternalUrl
        TimeoutSeconds        = $TimeoutSeconds
        ServiceName           = $ServiceName
        RestartCommand        = $RestartCommand
        RestartTimeoutSeconds = $RestartTimeoutSeconds
        SettleSeconds         = $SettleSeconds
        Webhook               = $Webhook
        EventSource           = $EventSource
        LogPath               = $session.GetUnresolvedProviderPathFromPSPath($LogPath)
        MaxLogMB              = $MaxLogMB
        StatePath             = $session.GetUnresolvedProviderPathFromPSPath($StatePath)
        Policy                = @{
            failures              = $Failures
            successes             = $Successes
            restart_on            = $RestartOn.ToLowerInvariant()
            can_restart           = ($ServiceName -ne '') -or ($RestartCommand -ne '')
            max_restarts_per_hour = $MaxRestartsPerHour
        }
    }
    exit (Invoke-HealthWatch -Settings $settings)
}
