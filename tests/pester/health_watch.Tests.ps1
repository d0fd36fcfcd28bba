#Requires -Version 5.1
# Pester 5: the decisions of health_watch.ps1 by the table that the Python twin is held to as well,
# then its parts with real files, real servers on the loopback address and real processes.

BeforeDiscovery {
    # A test with this tag needs Windows; elsewhere its name and this reason are all that is shown.
    $elsewhere = [Environment]::OSVersion.Platform -ne 'Win32NT'
    $root = Split-Path -Path (Split-Path -Path $PSScriptRoot -Parent) -Parent
    $table = Get-Content -Raw -Path (Join-Path -Path $root -ChildPath 'tests/cases/health.json') | ConvertFrom-Json
    $answers = @($table.answers | ForEach-Object { @{ status = $_.status; body = $_.body; ok = $_.ok; degraded = $_.degraded; says = $_.says } })
    $cases = @($table.cases | ForEach-Object { @{ name = $_.name; case = $_; defaults = $table.policy } })
}

BeforeAll {
    $root = Split-Path -Path (Split-Path -Path $PSScriptRoot -Parent) -Parent
    . (Join-Path -Path $root -ChildPath 'scripts/health_watch.ps1')

    function ConvertFrom-Step {
        param([object]$Step)
        $answers = @{ ok = $true; degraded = $true; fail = $false; none = $null }
        $checks = @{ internal = $answers[$Step.internal]; external = $answers[$Step.external]; degraded = $null }
        foreach ($word in @($Step.internal, $Step.external)) {
            if ($answers[$word]) { $checks.degraded = ($word -eq 'degraded') -or ($checks.degraded -eq $true) }
        }
        return $checks
    }

    function Get-Optional {
        param([object]$From, [string]$Name, [object]$Default)
        $property = $From.PSObject.Properties[$Name]
        if ($null -eq $property) { return $Default }
        return $property.Value
    }

    function Get-Policy {
        param([object]$Defaults, [object]$Case)
        $policy = @{}
        foreach ($one in $Defaults.PSObject.Properties) { $policy[$one.Name] = $one.Value }
        $own = Get-Optional -From $Case -Name 'policy' -Default $null
        if ($null -ne $own) {
            foreach ($one in $own.PSObject.Properties) { $policy[$one.Name] = $one.Value }
        }
        return $policy
    }

    function Open-TestServer {
        # Answers each request on a free loopback port with one status and body, after a while, from
        # a runspace of its own that ends with the listener; `bodies` are what was posted to it.
        param([int]$Status, [string]$Body, [int]$DelayMs)
        $probe = New-Object System.Net.Sockets.TcpListener([System.Net.IPAddress]::Loopback, 0)
        $probe.Start()
        $port = $probe.LocalEndpoint.Port
        $probe.Stop()
        $server = @{
            url      = "http://127.0.0.1:$port/health"
            listener = New-Object System.Net.HttpListener
            ended    = New-Object System.Threading.ManualResetEvent($false)
            bodies   = [System.Collections.ArrayList]::Synchronized((New-Object System.Collections.ArrayList))
            shell    = [PowerShell]::Create()
        }
        $server.listener.Prefixes.Add("http://127.0.0.1:$port/")
        $server.listener.Start()
        $null = $server.shell.AddScript({
                param($Server, $Status, $Body, $DelayMs)
                try {
                    while ($true) {
                        $context = $Server.listener.GetContext()
                        $reader = New-Object System.IO.StreamReader($context.Request.InputStream)
                        $null = $Server.bodies.Add($reader.ReadToEnd())
                        $null = $Server.ended.WaitOne($DelayMs)
                        $bytes = [System.Text.Encoding]::UTF8.GetBytes($Body)
                        $context.Response.StatusCode = $Status
                        $context.Response.OutputStream.Write($bytes, 0, $bytes.Length)
                        $context.Response.Close()
                    }
                }
                catch {
                    # The listener was closed.
                    $null = $_
                }
            }).AddArgument($server).AddArgument($Status).AddArgument($Body).AddArgument($DelayMs)
        $null = $server.shell.BeginInvoke()
        return $server
    }

    function Close-TestServer {
        param([hashtable]$Server)
        $null = $Server.ended.Set()
        $Server.listener.Close()
        $Server.shell.Dispose()
    }

    if (-not (Test-Windows)) {
        # Small programs in the place of those of System32.
        $standIns = Join-Path -Path ([System.IO.Path]::GetTempPath()) -ChildPath ('pillsnap-system-' + [Guid]::NewGuid().ToString('N'))
        $null = [System.IO.Directory]::CreateDirectory("$standIns/System32")
        $programs = @{
            'cmd.exe'         = 'shift 3; exec sh -c "$*"'
            'taskkill.exe'    = 'kill -9 $(cat /proc/$2/task/*/children) $2'
            'eventcreate.exe' = 'exit 0'
        }
        foreach ($name in $programs.Keys) {
            [System.IO.File]::WriteAllText("$standIns/System32/$name", "#!/bin/sh`n$($programs[$name])`n")
            chmod +x "$standIns/System32/$name"
        }
        $surroundings = @{ root = $env:SystemRoot; temporary = $env:TMPDIR }
        $env:SystemRoot = $standIns
        $env:TMPDIR = $standIns
    }

    function Get-Held {
        # A folder for the state in which it cannot be kept, and what ends that.
        param([string]$Kind, [string]$Folder)
        $null = [System.IO.Directory]::CreateDirectory($Folder)
        $place = @{ state = (Join-Path -Path $Folder -ChildPath 'state.json'); stream = $null; disk = '' }
        if ($Kind -eq 'a file where its folder should be') {
            [System.IO.File]::WriteAllText((Join-Path -Path $Folder -ChildPath 'file'), '')
            $place.state = Join-Path -Path $Folder -ChildPath 'file/state.json'
        }
        if ($Kind -eq 'another program') {
            $place.stream = [System.IO.File]::Open($place.state, [System.IO.FileMode]::OpenOrCreate, [System.IO.FileAccess]::ReadWrite, [System.IO.FileShare]::None)
        }
        if ($Kind -eq 'a full disk') {
            if (Test-Windows) { return $null }
            $null = mount -t tmpfs -o size=64k pillsnap-test $Folder 2>&1
            if ($LASTEXITCODE -ne 0) { return $null }
            $place.disk = $Folder
            try {
                [System.IO.File]::WriteAllBytes((Join-Path -Path $Folder -ChildPath 'filler'), (New-Object byte[] 1000000))
            }
            catch {
                $null = $_
            }
        }
        return $place
    }

    function Close-Held {
        param([hashtable]$Place)
        if ($null -ne $Place.stream) { $Place.stream.Dispose() }
        if ($Place.disk -ne '') { umount $Place.disk }
    }

    function Get-TestSetting {
        param([string]$Folder, [string]$Url)
        return @{
            InternalUrl           = $Url
            ExternalUrl           = ''
            TimeoutSeconds        = 3
            ServiceName           = ''
            RestartCommand        = 'exit 0'
            RestartTimeoutSeconds = 20
            SettleSeconds         = 0
            Webhook               = ''
            EventSource           = 'PillSnapHealth'
            LogPath               = Join-Path -Path $Folder -ChildPath 'health_watch.log'
            MaxLogMB              = 10
            StatePath             = Join-Path -Path $Folder -ChildPath 'health_watch.state.json'
            Policy                = @{
                failures              = 2
                successes             = 2
                restart_on            = 'any'
                can_restart           = $true
                max_restarts_per_hour = 3
            }
        }
    }
}

AfterAll {
    if (-not (Test-Windows)) {
        $env:SystemRoot = $surroundings.root
        $env:TMPDIR = $surroundings.temporary
        [System.IO.Directory]::Delete($standIns, $true)
    }
}

Describe 'the decisions' {
    It 'are those of the table: <name>' -ForEach $cases {
        $policy = Get-Policy -Defaults $defaults -Case $case
        $state = Get-EmptyState
        foreach ($step in $case.steps) {
            $because = "minute $($step.minute)"
            $now = 1800000000 + 60 * $step.minute
            $decision = Get-HealthDecision -State $state -Checks (ConvertFrom-Step -Step $step) -Policy $policy -NowS $now
            $actions = @($decision.actions)
            $recheck = Get-Optional -From $step -Name 'recheck' -Default $null
            ($actions -contains 'restart') | Should -Be ($null -ne $recheck) -Because $because
            if ($null -ne $recheck) {
                $decision = Get-RecheckDecision -State $decision.state -Checks (ConvertFrom-Step -Step $recheck) -Policy $policy
                $actions += $decision.actions
            }
            ($actions -join ',') | Should -Be (@($step.actions) -join ',') -Because $because
            $decision.exit_code | Should -Be $step.exit -Because $because
            $decision.reason | Should -Be (Get-Optional -From $step -Name 'reason' -Default $decision.reason) -Because $because
            $layer = Get-Optional -From $step -Name 'layer' -Default ''
            if ($layer -ne '') { $decision.state.incident.layer | Should -Be $layer -Because $because }
            $since = Get-Optional -From $step -Name 'since' -Default (-1)
            $degradedSince = Get-Optional -From $step -Name 'degraded_since' -Default (-1)
            if ($degradedSince -ge 0) { $decision.state.degradation.since_s | Should -Be (1800000000 + 60 * $degradedSince) -Because $because }
            if ($since -ge 0) { $decision.state.incident.since_s | Should -Be (1800000000 + 60 * $since) -Because $because }
            $state = $decision.state
        }
    }
}

Describe 'the state' {
    It 'comes back as it was written' {
        $path = Join-Path -Path $TestDrive -ChildPath 'state.json'
        $state = Get-EmptyState
        $state.external_failures = 1
        $state.failing_since_s = 1800000000
        $state.restarts_at_s = @(1800000001)
        $state.incident = @{ since_s = 1800000000; layer = 'tunnel'; alerted = $true }
        $state.degradation = @{ runs = 3; good_runs = 0; since_s = 1800000002; alerted = $true }
        $notice = @{ event = 'alert'; text = 'a text' }
        foreach ($turn in 1..2) {
            Save-WatchMemory -Path $path -Memory @{ state = $state; undelivered = @($notice) }
        }
        $read = Read-WatchMemory -Path $path
        $read.note | Should -Be ''
        $read.memory.state.external_failures | Should -Be 1
        $read.memory.state.restarts_at_s.Count | Should -Be 1
        $read.memory.state.restarts_at_s[0] | Should -Be 1800000001
        $read.memory.state.incident.alerted | Should -BeTrue
        $read.memory.state.degradation.runs | Should -Be 3
        $read.memory.state.degradation.since_s | Should -Be 1800000002
        $read.memory.state.degradation.alerted | Should -BeTrue
        $read.memory.undelivered[0].text | Should -Be 'a text'
        Test-Path -Path "$path.tmp" | Should -BeFalse
    }

    It 'begins anew where it is damaged, and says so: <damage>' -ForEach @(
        @{ damage = '' }
        @{ damage = '{' }
        @{ damage = '{"schema": "health-watch-windows/9"}' }
        @{ damage = '{"schema": "health-watch-windows/1"}' }
    ) {
        $path = Join-Path -Path $TestDrive -ChildPath 'damaged.json'
        [System.IO.File]::WriteAllText($path, $damage)
        $read = Read-WatchMemory -Path $path
        $read.note | Should -Match 'counting starts anew'
        $read.memory.state.external_failures | Should -Be 0
        [System.IO.File]::ReadAllText("$path.damaged") | Should -Be $damage
    }

    It 'of the build before is read with its incident, none degraded' {
        $path = Join-Path -Path $TestDrive -ChildPath 'before.json'
        $memory = @{ state = (Get-EmptyState); undelivered = @() }
        $memory.state.incident = @{ since_s = 1800000000; layer = 'app'; alerted = $true }
        $memory.state.Remove('degradation')
        Save-WatchMemory -Path $path -Memory $memory
        $read = Read-WatchMemory -Path $path
        $read.note | Should -Be ''
        $read.memory.state.incident.alerted | Should -BeTrue
        $read.memory.state.degradation.alerted | Should -BeFalse
        $read.memory.state.degradation.since_s | Should -BeNullOrEmpty
    }

    It 'is locked by one run at a time' {
        $path = Join-Path -Path $TestDrive -ChildPath 'run.lock'
        $first = Open-RunLock -Path $path
        try {
            $first | Should -Not -BeNullOrEmpty
            Open-RunLock -Path $path | Should -BeNullOrEmpty
        }
        finally {
            $first.Dispose()
        }
        $again = Open-RunLock -Path $path
        $again | Should -Not -BeNullOrEmpty
        $again.Dispose()
    }
}

Describe 'a check' {
    It 'of <status> with <body> is <ok>: <says>' -ForEach $answers {
        $judgement = Get-Judgement -Status $status -Body $body
        $judgement.ok | Should -Be $ok
        $judgement.degraded | Should -Be $degraded
        $judgement.detail | Should -Match ('^HTTP {0}.*{1}' -f $status, [regex]::Escape($says))
    }

    It 'over HTTP is judged alike: <status>, <body>' -ForEach @(
        @{ status = 200; body = '{"status":"ok"}'; ok = $true; degraded = $false }
        @{ status = 200; body = '{"status":"degraded","wanted":"b","served":"a"}'; ok = $true; degraded = $true }
        @{ status = 500; body = '{"detail":"broken"}'; ok = $false; degraded = $false }
    ) {
        $server = Open-TestServer -Status $status -Body $body -DelayMs 0
        try {
            $result = Get-CheckResult -Name 'internal' -Url $server.url -TimeoutSeconds 10
            $result.ok | Should -Be $ok
            $result.degraded | Should -Be $degraded
            $result.detail | Should -Be (Get-Judgement -Status $status -Body $body).detail
        }
        finally {
            Close-TestServer -Server $server
        }
    }

    It 'gives up at its deadline' {
        $server = Open-TestServer -Status 200 -Body '{"status":"ok"}' -DelayMs 5000
        try {
            $result = Get-CheckResult -Name 'internal' -Url $server.url -TimeoutSeconds 1
            $result.ok | Should -BeFalse
            $result.detail | Should -Be 'no answer within 1 s'
        }
        finally {
            Close-TestServer -Server $server
        }
    }

    It 'fails where nobody listens' {
        $result = Get-CheckResult -Name 'internal' -Url 'http://127.0.0.1:9/health' -TimeoutSeconds 5
        $result.ok | Should -BeFalse
    }
}

Describe 'a program' {
    It 'that fails says why' {
        $run = Invoke-Program -Name 'cmd.exe' -Arguments '/d /s /c "echo no such unit& exit 5"' -TimeoutSeconds 30
        $run.ok | Should -BeFalse
        $run.detail | Should -Match '^exit 5 no such unit'
    }

    It 'that hangs is ended with what it started' {
        $waits = 'sleep 120'
        if (Test-Windows) { $waits = 'ping -n 120 127.0.0.1' }
        $run = Invoke-Program -Name 'cmd.exe' -Arguments "/d /s /c `"$waits`"" -TimeoutSeconds 1
        $run.ok | Should -BeFalse
        $run.detail | Should -Be 'hung and was ended after 1 s'
    }
}

Describe 'runs a minute apart' {
    It 'restart at the second failure, alert once, and tell when it is over' {
        $settings = Get-TestSetting -Folder $TestDrive -Url 'http://127.0.0.1:9/health'
        Invoke-HealthWatch -Settings $settings | Should -Be 0
        Invoke-HealthWatch -Settings $settings | Should -Be 3
        Invoke-HealthWatch -Settings $settings | Should -Be 3
        $server = Open-TestServer -Status 200 -Body '{"status":"ok"}' -DelayMs 0
        try {
            $settings.InternalUrl = $server.url
            Invoke-HealthWatch -Settings $settings | Should -Be 0
            Invoke-HealthWatch -Settings $settings | Should -Be 0
        }
        finally {
            Close-TestServer -Server $server
        }
        $log = [System.IO.File]::ReadAllText($settings.LogPath)
        ([regex]::Matches($log, 'PillSnap ALERT')).Count | Should -Be 1
        ([regex]::Matches($log, 'PillSnap RECOVERED')).Count | Should -Be 1
        ([regex]::Matches($log, 'restart: exit 0')).Count | Should -Be 1
        $log | Should -Match 'the app is down \(still failing after a restart\)'
    }

    It 'tell once of an app that is degraded, restart nothing, and tell when it is over' {
        $settings = Get-TestSetting -Folder (Join-Path -Path $TestDrive -ChildPath 'degraded') -Url ''
        $body = '{"status":"degraded","wanted":"model-b","served":"model-a","reason":"it could not be loaded"}'
        foreach ($turn in @(@{ body = $body; exits = @(0, 3, 3) }, @{ body = '{"status":"ok"}'; exits = @(0, 0) })) {
            $server = Open-TestServer -Status 200 -Body $turn.body -DelayMs 0
            try {
                $settings.InternalUrl = $server.url
                foreach ($exit in $turn.exits) { Invoke-HealthWatch -Settings $settings | Should -Be $exit }
            }
            finally {
                Close-TestServer -Server $server
            }
        }
        $log = [System.IO.File]::ReadAllText($settings.LogPath)
        ([regex]::Matches($log, 'PillSnap ALERT: another model is served than should be')).Count | Should -Be 1
        ([regex]::Matches($log, 'PillSnap RECOVERED: the model that should be is served again')).Count | Should -Be 1
        $log | Should -Match 'internal DEGRADED \(HTTP 200, degraded: wanted model-b, serves model-a \(it could not be loaded\)\)'
        $log | Should -Not -Match 'restart: '
    }

    It 'leave the alert in the Windows event log (needs Windows: the event log)' -Tag 'Windows' -Skip:$elsewhere {
        $found = Get-WinEvent -FilterHashtable @{ LogName = 'Application'; ProviderName = 'PillSnapHealth' } -MaxEvents 5
        @($found | Where-Object { $_.Message -match 'PillSnap ALERT' }).Count | Should -BeGreaterThan 0
    }
}

Describe 'a watch that cannot keep its state' {
    BeforeEach {
        $clock = @{ now = 1800000000 }
        $outside = @{ restarts = 0; entries = @(); posts = @() }
        Mock Get-NowS { $clock.now }
        Mock Invoke-Restart { $outside.restarts += 1; @{ ok = $true; detail = 'exit 0' } }
        Mock Write-EventEntry { $outside.entries += "$Number $Text" }
        Mock Send-Notice { $outside.posts += "$($Notice.event) $($Notice.text)"; '' }
        $env:PILLSNAP_TEST_WEBHOOK = 'http://127.0.0.1:9/'
        $folder = Join-Path -Path $TestDrive -ChildPath ([Guid]::NewGuid().ToString('N'))
        $settings = Get-TestSetting -Folder $folder -Url 'http://127.0.0.1:9/health'
        $settings.Webhook = 'env:PILLSNAP_TEST_WEBHOOK'
    }

    It 'restarts, alerts once and says so once an hour, whatever stands in the way: <_>' -ForEach @(
        'a file where its folder should be', 'another program', 'a full disk'
    ) {
        $place = Get-Held -Kind $_ -Folder $folder
        if ($null -eq $place) { Set-ItResult -Skipped -Because 'a small disk is mounted by root on Linux alone'; return }
        $settings.StatePath = $place.state
        try {
            foreach ($turn in 1..3) {
                $null = Invoke-HealthWatch -Settings $settings
                $clock.now += 60
            }
            $outside.restarts | Should -Be 1
            @($outside.posts -match '^alert ').Count | Should -Be 1
            @($outside.entries -match '^100 PillSnap ALERT').Count | Should -Be 1
            @($outside.posts -match '^trouble .*(cannot be (written|read))').Count | Should -Be 1
            @($outside.entries -match '^102 PillSnap TROUBLE').Count | Should -Be 1
            if ($null -ne $place.stream) { return }
            foreach ($turn in 4..70) {
                Invoke-HealthWatch -Settings $settings | Should -Be 3
                $clock.now += 60
            }
            @($outside.posts -match '^alert ').Count | Should -Be 1
            @($outside.posts -match '^trouble ').Count | Should -Be 2
            $outside.restarts | Should -BeLessOrEqual 6
        }
        finally {
            Close-Held -Place $place
        }
    }

    It 'does something once an hour where nothing at all can be remembered' {
        Mock Write-SecondMemory { throw 'no room' }
        $place = Get-Held -Kind 'a file where its folder should be' -Folder $folder
        $settings.StatePath = $place.state
        foreach ($turn in 1..120) {
            Invoke-HealthWatch -Settings $settings | Should -Be 3
            $clock.now += 60
        }
        $outside.restarts | Should -Be 2
        @($outside.posts -match '^alert ').Count | Should -Be 2
        @($outside.posts -match '^trouble .*nothing can be remembered').Count | Should -Be 2
        @($outside.entries -match '^100 ').Count | Should -Be 2
    }

    It 'waits for another program that has it open for a moment' {
        Invoke-HealthWatch -Settings $settings | Should -Be 0
        $scanner = [System.IO.File]::Open($settings.StatePath, [System.IO.FileMode]::Open, [System.IO.FileAccess]::ReadWrite, [System.IO.FileShare]::None)
        Mock Start-Sleep { $scanner.Dispose() }
        (Read-WatchMemory -Path $settings.StatePath).memory.state.internal_failures | Should -Be 1
        Should -Invoke Start-Sleep -Times 1 -Exactly
    }

    It 'goes on where it was when the state can be kept again, and forgets no incident' {
        $place = Get-Held -Kind 'a file where its folder should be' -Folder $folder
        $settings.StatePath = $place.state
        foreach ($turn in 1..2) { $null = Invoke-HealthWatch -Settings $settings }
        [System.IO.File]::Delete((Join-Path -Path $folder -ChildPath 'file'))
        foreach ($turn in 1..3) { Invoke-HealthWatch -Settings $settings | Should -Be 3 }
        @($outside.posts -match '^alert ').Count | Should -Be 1
        (Read-WatchMemory -Path $settings.StatePath).memory.alone | Should -BeFalse
    }

    It 'counts anew where a person removed the state' {
        Invoke-HealthWatch -Settings $settings | Should -Be 0
        [System.IO.File]::Delete($settings.StatePath)
        (Read-WatchMemory -Path $settings.StatePath).memory.state.internal_failures | Should -Be 0
    }

    It 'keeps its second memory in the registry (needs Windows: the registry)' -Tag 'Windows' -Skip:$elsewhere {
        Write-SecondMemory -Path 'C:\pillsnap test\state.json' -Json '{"a": 1}'
        Read-SecondMemory -Path 'C:\pillsnap test\state.json' | Should -Be '{"a": 1}'
        Read-SecondMemory -Path 'C:\pillsnap test\another.json' | Should -Be ''
    }
}

Describe 'telling' {
    BeforeEach {
        $works = @{ log = $false; web = $true }
        $outside = @{ entries = @(); posts = @() }
        Mock Invoke-Restart { @{ ok = $true; detail = 'exit 0' } }
        Mock Write-EventEntry { if (-not $works.log) { throw 'the event log is full' }; $outside.entries += $Text }
        Mock Send-Notice { if (-not $works.web) { return 'HTTP 503' }; $outside.posts += $Notice.text; '' }
        $env:PILLSNAP_TEST_WEBHOOK = 'http://127.0.0.1:9/'
        $settings = Get-TestSetting -Folder (Join-Path -Path $TestDrive -ChildPath ([Guid]::NewGuid().ToString('N'))) -Url 'http://127.0.0.1:9/health'
        $settings.Webhook = 'env:PILLSNAP_TEST_WEBHOOK'
    }

    It 'returns why the event log takes nothing, whatever throws: <_>' -ForEach @('a program', 'no SystemRoot') {
        if ($_ -eq 'a program') { Mock Invoke-Program { throw 'taskkill is gone' } } else { Mock Get-SystemProgram { throw 'Path is null' } }
        $failure = Write-AlertEvent -Source 'PillSnapHealth' -Text 'a "quoted" text' -IsAlert $true
        $failure | Should -Match '^event log: the event log is full; eventcreate: '
    }

    It 'is done elsewhere and again where the event log fails' {
        Mock Invoke-Program { throw 'taskkill is gone' }
        foreach ($turn in 1..3) { $null = Invoke-HealthWatch -Settings $settings }
        $outside.posts.Count | Should -Be 1
        $works.log = $true
        foreach ($turn in 1..2) { Invoke-HealthWatch -Settings $settings | Should -Be 3 }
        @($outside.entries -match 'PillSnap ALERT').Count | Should -Be 1
        $outside.posts.Count | Should -Be 1
        [System.IO.File]::ReadAllText($settings.LogPath) | Should -Match 'event log: the event log is full; eventcreate: taskkill is gone; tried again'
    }

    It 'is done elsewhere and again where the webhook fails' {
        $works.log = $true
        $works.web = $false
        foreach ($turn in 1..3) { $null = Invoke-HealthWatch -Settings $settings }
        $outside.entries.Count | Should -Be 1
        $works.web = $true
        $null = Invoke-HealthWatch -Settings $settings
        $outside.posts.Count | Should -Be 1
        $outside.entries.Count | Should -Be 1
    }

    It 'goes on where nobody reads the console' {
        $works.log = $true
        $before = [Console]::Error
        $closed = New-Object System.IO.StreamWriter([System.IO.Stream]::Null)
        $closed.Dispose()
        [Console]::SetError($closed)
        try {
            foreach ($turn in 1..2) { $null = Invoke-HealthWatch -Settings $settings }
        }
        finally {
            [Console]::SetError($before)
        }
        $outside.posts.Count | Should -Be 1
        $outside.entries.Count | Should -Be 1
    }

    It 'says to the event log and the webhook that the log cannot be written, once an hour' {
        $works.log = $true
        $null = [System.IO.Directory]::CreateDirectory($settings.LogPath)
        foreach ($turn in 1..3) { $null = Invoke-HealthWatch -Settings $settings }
        @($outside.posts -match '^PillSnap TROUBLE: cannot append to').Count | Should -Be 1
        @($outside.entries -match '^PillSnap TROUBLE: cannot append to').Count | Should -Be 1
    }

    It 'gives the event log up after an hour, for an account that may not write there' {
        Mock Invoke-Program { @{ ok = $false; detail = 'exit 1' } }
        $clock = @{ now = 1800000000 }
        Mock Get-NowS { $clock.now }
        foreach ($turn in 1..2) { $null = Invoke-HealthWatch -Settings $settings }
        (Read-WatchMemory -Path $settings.StatePath).memory.undelivered.Count | Should -Be 1
        $clock.now += 3600
        $null = Invoke-HealthWatch -Settings $settings
        (Read-WatchMemory -Path $settings.StatePath).memory.undelivered.Count | Should -Be 0
    }
}
