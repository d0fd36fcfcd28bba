#Requires -Version 5.1
# Pester 5: the decisions of health_watch.ps1 by the table that the Python twin is held to as well,
# then its parts with real files, real servers on the loopback address and real processes.

BeforeDiscovery {
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
        # Answers each request on a free loopback port with one status and body, after a while.
        param([int]$Status, [string]$Body, [int]$DelayMs)
        $probe = New-Object System.Net.Sockets.TcpListener([System.Net.IPAddress]::Loopback, 0)
        $probe.Start()
        $port = $probe.LocalEndpoint.Port
        $probe.Stop()
        $job = Start-Job -ArgumentList $port, $Status, $Body, $DelayMs -ScriptBlock {
            param($Port, $Status, $Body, $DelayMs)
            $listener = New-Object System.Net.HttpListener
            $listener.Prefixes.Add("http://127.0.0.1:$Port/")
            $listener.Start()
            'listening'
            while ($true) {
                $context = $listener.GetContext()
                if ($context.Request.Url.AbsolutePath -eq '/end') {
                    $context.Response.Close()
                    break
                }
                Start-Sleep -Milliseconds $DelayMs
                $bytes = [System.Text.Encoding]::UTF8.GetBytes($Body)
                $context.Response.StatusCode = $Status
                $context.Response.OutputStream.Write($bytes, 0, $bytes.Length)
                $context.Response.Close()
            }
        }
        $watch = [System.Diagnostics.Stopwatch]::StartNew()
        while (-not (Receive-Job -Job $job -Keep)) {
            if ($watch.Elapsed.TotalSeconds -gt 60) { throw 'the test server did not start' }
            Start-Sleep -Milliseconds 100
        }
        return @{ url = "http://127.0.0.1:$port/health"; job = $job }
    }

    function Close-TestServer {
        # By asking it to end: a job that waits for a request keeps Remove-Job waiting for minutes.
        param([hashtable]$Server)
        $null = Get-CheckResult -Name 'end' -Url ($Server.url -replace '/health$', '/end') -TimeoutSeconds 60
        Remove-Job -Job $Server.job -Force
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
            $since = Get-Optional -From $step -Name 'since' -Default -1
            $degradedSince = Get-Optional -From $step -Name 'degraded_since' -Default -1
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
        $run = Invoke-Program -Name 'cmd.exe' -Arguments '/d /s /c "ping -n 120 127.0.0.1"' -TimeoutSeconds 1
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

    It 'leave the alert in the Windows event log' {
        $found = Get-WinEvent -FilterHashtable @{ LogName = 'Application'; ProviderName = 'PillSnapHealth' } -MaxEvents 5
        @($found | Where-Object { $_.Message -match 'PillSnap ALERT' }).Count | Should -BeGreaterThan 0
    }
}
