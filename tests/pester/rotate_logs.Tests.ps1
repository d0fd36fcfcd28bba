#Requires -Version 5.1
# Pester 5: the decisions of rotate_logs.ps1 by the table that the Python twin is held to as well,
# then rotations of real files: nobody has them open, a writer has, a run was killed.

BeforeDiscovery {
    # A test with this tag needs Windows; elsewhere its name and this reason are all that is shown.
    $elsewhere = [Environment]::OSVersion.Platform -ne 'Win32NT'
    $root = Split-Path -Path (Split-Path -Path $PSScriptRoot -Parent) -Parent
    $table = Get-Content -Raw -Path (Join-Path -Path $root -ChildPath 'tests/cases/rotation.json') | ConvertFrom-Json
    $limits = @{ max_bytes = $table.policy.max_bytes; max_days = $table.policy.max_days; keep = $table.policy.keep }
    $due = @($table.due | ForEach-Object { @{ name = $_.name; case = $_; limits = $limits } })
    $names = @($table.names | ForEach-Object { @{ name = $_.name; case = $_; log = $table.log } })
    $surplus = @($table.surplus | ForEach-Object { @{ name = $_.name; case = $_; log = $table.log } })
}

BeforeAll {
    $root = Split-Path -Path (Split-Path -Path $PSScriptRoot -Parent) -Parent
    . (Join-Path -Path $root -ChildPath 'scripts/rotate_logs.ps1')

    function Get-TestFolder {
        $folder = Join-Path -Path $TestDrive -ChildPath ([Guid]::NewGuid().ToString('N'))
        $null = [System.IO.Directory]::CreateDirectory($folder)
        return $folder
    }

    function Get-TestSetting {
        param([string]$Folder)
        return @{
            LogPath     = Join-Path -Path $Folder -ChildPath 'cloudflared.log'
            ServiceName = ''
            NoPause     = $false
            DryRun      = $false
            Policy      = @{ max_bytes = 10; max_days = 7; keep = 10 }
        }
    }

    function Get-Unpacked {
        param([string]$Path)
        $file = [System.IO.File]::OpenRead($Path)
        $pack = New-Object System.IO.Compression.GZipStream($file, [System.IO.Compression.CompressionMode]::Decompress)
        $reader = New-Object System.IO.StreamReader($pack)
        try {
            return $reader.ReadToEnd()
        }
        finally {
            $reader.Dispose()
            $file.Dispose()
        }
    }

    function Get-ArchivePath {
        param([string]$Folder)
        $paths = [string[]][System.IO.Directory]::GetFiles($Folder, '*.gz')
        [Array]::Sort($paths, [System.StringComparer]::Ordinal)
        return $paths
    }

    function Get-Told {
        # What a run says on standard error, and its exit code.
        param([hashtable]$Settings)
        $before = [Console]::Error
        $said = New-Object System.IO.StringWriter
        [Console]::SetError($said)
        try {
            $code = Invoke-Rotation -Settings $Settings -Ask $yes
        }
        finally {
            [Console]::SetError($before)
        }
        return @{ code = $code; text = $said.ToString() }
    }

    function Test-ReadOnly {
        param([string]$Path)
        return [bool]([System.IO.File]::GetAttributes($Path) -band [System.IO.FileAttributes]::ReadOnly)
    }

    $yes = { param($What) $null = $What; $true }
}

Describe 'the decisions' {
    It 'about when are those of the table: <name>' -ForEach $due {
        Get-DueReason -SizeBytes $case.size_bytes -AgeDays $case.age_days -Policy $limits | Should -Be $case.due
    }

    It 'about names are those of the table: <name>' -ForEach $names {
        Get-ArchiveName -LogName $log -Day $case.day -Taken @($case.taken) | Should -Be $case.name
    }

    It 'about what goes are those of the table: <name>' -ForEach $surplus {
        $found = @(Get-SurplusArchive -LogName $log -Names @($case.names) -Keep $case.keep)
        ($found -join ',') | Should -Be (@($case.delete) -join ',')
    }
}

Describe 'a rotation' {
    It 'packs a log that nobody has open, and numbers the second of a day' {
        $settings = Get-TestSetting -Folder (Get-TestFolder)
        foreach ($content in @('first line of the log', 'second line of the log')) {
            [System.IO.File]::WriteAllText($settings.LogPath, $content)
            Invoke-Rotation -Settings $settings -Ask $yes | Should -Be 0
            [System.IO.File]::Exists($settings.LogPath) | Should -BeFalse
        }
        $made = @(Get-ArchivePath -Folder (Split-Path -Path $settings.LogPath -Parent))
        $made.Count | Should -Be 2
        @($made | ForEach-Object { Get-Unpacked -Path $_ }) | Should -Contain 'first line of the log'
        @($made | ForEach-Object { Get-Unpacked -Path $_ }) | Should -Contain 'second line of the log'
        @($made | Where-Object { $_ -match '-2\.gz$' }).Count | Should -Be 1
    }

    It 'empties a log that a writer keeps open, and loses none of its lines' {
        $settings = Get-TestSetting -Folder (Get-TestFolder)
        # Linux renames a log under its writer: the other way is taken by hand.
        Mock Invoke-RenameAlone { $false }
        # As a program does that does not share deletion: the log cannot be renamed. Seeking to the
        # end before each line is what a program does that appends.
        $writer = [System.IO.File]::Open($settings.LogPath, [System.IO.FileMode]::OpenOrCreate, [System.IO.FileAccess]::Write, [System.IO.FileShare]::ReadWrite)
        try {
            foreach ($turn in 1..3) {
                foreach ($number in 1..100) {
                    $bytes = [System.Text.Encoding]::ASCII.GetBytes("line $turn $number`n")
                    $null = $writer.Seek(0, [System.IO.SeekOrigin]::End)
                    $writer.Write($bytes, 0, $bytes.Length)
                    $writer.Flush()
                }
                Invoke-Rotation -Settings $settings -Ask $yes | Should -Be 0
                (New-Object System.IO.FileInfo($settings.LogPath)).Length | Should -Be 0
            }
        }
        finally {
            $writer.Dispose()
        }
        $made = @(Get-ArchivePath -Folder (Split-Path -Path $settings.LogPath -Parent))
        $lines = @($made | ForEach-Object { (Get-Unpacked -Path $_).TrimEnd("`n") -split "`n" })
        $lines.Count | Should -Be 300
        (New-Object System.Collections.Generic.HashSet[string](, [string[]]$lines)).Count | Should -Be 300
    }

    It 'finishes what a killed run left, once' {
        $settings = Get-TestSetting -Folder (Get-TestFolder)
        [System.IO.File]::WriteAllText("$($settings.LogPath).rotating", 'set aside by a killed run')
        [System.IO.File]::WriteAllText($settings.LogPath, 'short')
        foreach ($turn in 1..2) { Invoke-Rotation -Settings $settings -Ask $yes | Should -Be 0 }
        $made = @(Get-ArchivePath -Folder (Split-Path -Path $settings.LogPath -Parent))
        $made.Count | Should -Be 1
        Get-Unpacked -Path $made[0] | Should -Be 'set aside by a killed run'
    }

    It 'drops a copy whose log was not truncated yet, and keeps one whose log was' {
        $settings = Get-TestSetting -Folder (Get-TestFolder)
        [System.IO.File]::WriteAllText($settings.LogPath, 'abc')
        [System.IO.File]::WriteAllText("$($settings.LogPath).copy", 'ab')
        Invoke-Rotation -Settings $settings -Ask $yes | Should -Be 0
        @(Get-ArchivePath -Folder (Split-Path -Path $settings.LogPath -Parent)).Count | Should -Be 0
        [System.IO.File]::WriteAllText("$($settings.LogPath).copy", 'xy and more')
        Invoke-Rotation -Settings $settings -Ask $yes | Should -Be 0
        $made = @(Get-ArchivePath -Folder (Split-Path -Path $settings.LogPath -Parent))
        Get-Unpacked -Path $made[0] | Should -Be 'xy and more'
    }

    It 'keeps the newest ten' {
        $folder = Get-TestFolder
        $settings = Get-TestSetting -Folder $folder
        foreach ($day in 10..21) { [System.IO.File]::WriteAllText((Join-Path -Path $folder -ChildPath "cloudflared.log.202001$day.gz"), '') }
        [System.IO.File]::WriteAllText($settings.LogPath, 'a line that is long enough')
        Invoke-Rotation -Settings $settings -Ask $yes | Should -Be 0
        $kept = @(Get-ArchivePath -Folder $folder)
        $kept.Count | Should -Be 10
        [System.IO.Path]::GetFileName($kept[0]) | Should -Be 'cloudflared.log.20200113.gz'
    }

    It 'ends as busy while another runs, and names a folder that is not there' {
        $settings = Get-TestSetting -Folder (Get-TestFolder)
        $lock = Open-RunLock -Path "$($settings.LogPath).lock"
        try {
            Invoke-Rotation -Settings $settings -Ask $yes | Should -Be 6
        }
        finally {
            $lock.Dispose()
        }
        $settings.LogPath = Join-Path -Path $TestDrive -ChildPath 'nowhere\cloudflared.log'
        Invoke-Rotation -Settings $settings -Ask $yes | Should -Be 2
    }

    It 'empties a log on which deletion is forbidden, and deletes what it set aside' {
        Mock Invoke-Deletion {
            # As Windows does, and Linux does not.
            if (Test-ReadOnly -Path $Path) { throw "Access to the path '$Path' is denied." }
            [System.IO.File]::Delete($Path)
        }
        $settings = Get-TestSetting -Folder (Get-TestFolder)
        foreach ($content in @('first line of the log', 'second line of the log')) {
            [System.IO.File]::WriteAllText($settings.LogPath, $content)
            [System.IO.File]::SetAttributes($settings.LogPath, 'ReadOnly')
            Invoke-Rotation -Settings $settings -Ask $yes | Should -Be 0
        }
        $made = @(Get-ArchivePath -Folder (Split-Path -Path $settings.LogPath -Parent))
        @($made | ForEach-Object { Get-Unpacked -Path $_ }) -join ',' | Should -Be 'second line of the log,first line of the log'
        [System.IO.File]::Exists("$($settings.LogPath).rotating") | Should -BeFalse
    }

    It 'deletes a surplus archive and a half-written one on which deletion is forbidden' {
        Mock Invoke-Deletion {
            if (Test-ReadOnly -Path $Path) { throw "Access to the path '$Path' is denied." }
            [System.IO.File]::Delete($Path)
        }
        $folder = Get-TestFolder
        $settings = Get-TestSetting -Folder $folder
        $settings.Policy.keep = 1
        foreach ($name in @('20200110.gz', '20200111.gz', '20200112.gz.partial')) {
            $path = Join-Path -Path $folder -ChildPath "cloudflared.log.$name"
            [System.IO.File]::WriteAllText($path, 'x')
            [System.IO.File]::SetAttributes($path, 'ReadOnly')
        }
        Invoke-Rotation -Settings $settings -Ask $yes | Should -Be 0
        $left = @([System.IO.Directory]::GetFiles($folder, '*.gz*') | ForEach-Object { [System.IO.Path]::GetFileName($_) })
        $left -join ',' | Should -Be 'cloudflared.log.20200111.gz'
    }

    It 'leaves what it cannot delete, names it, and rotates the log all the same: <name>' -ForEach @(
        @{ name = 'rotating' }
        @{ name = 'copy' }
    ) {
        $settings = Get-TestSetting -Folder (Get-TestFolder)
        $folder = Split-Path -Path $settings.LogPath -Parent
        $leftover = "$($settings.LogPath).$name"
        [System.IO.File]::WriteAllText($leftover, 'set aside by a killed run')
        Mock Invoke-Deletion { throw 'Access is denied.' } -ParameterFilter { $Path -match '\.(rotating|copy)(-[0-9]+)?$' }
        foreach ($turn in 1..3) {
            [System.IO.File]::WriteAllText($settings.LogPath, "content of turn $turn")
            $run = Get-Told -Settings $settings
            $run.code | Should -Be 9
            $run.text | Should -Match ('skipped: {0}: all of it is in cloudflared.log.[0-9]+.gz, and it cannot be deleted .Access is denied' -f [regex]::Escape($leftover))
        }
        $held = @(Get-ArchivePath -Folder $folder | ForEach-Object { Get-Unpacked -Path $_ })
        [Array]::Sort($held, [System.StringComparer]::Ordinal)
        $held -join ',' | Should -Be 'content of turn 1,content of turn 2,content of turn 3,set aside by a killed run'
    }

    It 'does not archive a copy again whose lines went on into another archive' {
        $settings = Get-TestSetting -Folder (Get-TestFolder)
        [System.IO.File]::WriteAllText("$($settings.LogPath).copy", 'the first line')
        [System.IO.File]::WriteAllText($settings.LogPath, 'the first line, and the second')
        Mock Invoke-Deletion { throw 'Access is denied.' } -ParameterFilter { $Path -match '\.copy$' }
        foreach ($turn in 1..2) { Invoke-Rotation -Settings $settings -Ask $yes | Should -Be 9 }
        $made = @(Get-ArchivePath -Folder (Split-Path -Path $settings.LogPath -Parent))
        @($made | ForEach-Object { Get-Unpacked -Path $_ }) -join '|' | Should -Be 'the first line, and the second'
    }

    It 'leaves a leftover that another program has open, and rotates the log' {
        $settings = Get-TestSetting -Folder (Get-TestFolder)
        $leftover = "$($settings.LogPath).rotating"
        [System.IO.File]::WriteAllText($leftover, 'set aside by a killed run')
        [System.IO.File]::WriteAllText($settings.LogPath, 'content of the log')
        $scanner = [System.IO.File]::Open($leftover, [System.IO.FileMode]::Open, [System.IO.FileAccess]::ReadWrite, [System.IO.FileShare]::None)
        try {
            $run = Get-Told -Settings $settings
        }
        finally {
            $scanner.Dispose()
        }
        $run.code | Should -Be 9
        $run.text | Should -Match ([regex]::Escape($leftover))
        Invoke-Rotation -Settings $settings -Ask $yes | Should -Be 0
        $made = @(Get-ArchivePath -Folder (Split-Path -Path $settings.LogPath -Parent))
        $made.Count | Should -Be 2
    }

    It 'names a folder that lies where it sets things aside, and rotates the log: <name>' -ForEach @(
        @{ name = 'rotating' }
        @{ name = 'copy' }
    ) {
        $settings = Get-TestSetting -Folder (Get-TestFolder)
        $null = [System.IO.Directory]::CreateDirectory("$($settings.LogPath).$name")
        [System.IO.File]::WriteAllText($settings.LogPath, 'content of the log')
        $run = Get-Told -Settings $settings
        $run.code | Should -Be 9
        $run.text | Should -Match ('^skipped: {0}: a folder lies where the log is set aside; rename or remove it' -f [regex]::Escape("$($settings.LogPath).$name"))
        @(Get-ArchivePath -Folder (Split-Path -Path $settings.LogPath -Parent)).Count | Should -Be 1
    }

    It 'says which program lets nobody else write the log, and what to do' {
        $settings = Get-TestSetting -Folder (Get-TestFolder)
        $settings.ServiceName = 'Cloudflared'
        $id = [System.Diagnostics.Process]::GetCurrentProcess().Id
        Mock Get-ServiceEntry { [pscustomobject]@{ ServiceType = 'Own Process'; ProcessId = $id } }
        Mock Initialize-Pause { }
        Mock Invoke-RenameAlone { $false }
        [System.IO.File]::WriteAllText($settings.LogPath, 'content of the log')
        $writer = [System.IO.File]::Open($settings.LogPath, [System.IO.FileMode]::Open, [System.IO.FileAccess]::ReadWrite, [System.IO.FileShare]::None)
        try {
            $run = Get-Told -Settings $settings
        }
        finally {
            $writer.Dispose()
        }
        $run.code | Should -Be 1
        $run.text | Should -Match ('error: {0} is not rotated, and nothing of it is lost: it is open in \S+ \(process {1}, ' -f [regex]::Escape($settings.LogPath), $id)
        $run.text | Should -Match 'lets nobody else write it .*stop that program, or have it share its log'
    }

    It 'says that another program than the service may hold the log' {
        Mock Get-ServiceEntry { $null }
        Get-HolderText -ServiceName 'Cloudflared' | Should -Be "a program that is not the service 'Cloudflared'"
    }

    It 'is done though the day of it cannot be kept, and says so: <name>' -ForEach @(
        @{ name = 'a folder'; state = 'rotation.json' }
        @{ name = 'a folder beside'; state = 'rotation.json.tmp' }
    ) {
        $settings = Get-TestSetting -Folder (Get-TestFolder)
        $null = [System.IO.Directory]::CreateDirectory("$($settings.LogPath).$state")
        [System.IO.File]::WriteAllText($settings.LogPath, 'content of the log')
        $run = Get-Told -Settings $settings
        $run.code | Should -Be 9
        $run.text | Should -Match 'rotation.json: it cannot be written .*rotated by its size alone'
        @(Get-ArchivePath -Folder (Split-Path -Path $settings.LogPath -Parent)).Count | Should -Be 1
    }

    It 'says why its lock cannot be made, which is no other run' {
        $settings = Get-TestSetting -Folder (Get-TestFolder)
        $null = [System.IO.Directory]::CreateDirectory("$($settings.LogPath).lock")
        $run = Get-Told -Settings $settings
        $run.code | Should -Be 1
        $run.text | Should -Match 'cloudflared.log.lock'
    }

    It 'tells content from another that differs in the case of its letters alone' {
        $folder = Get-TestFolder
        foreach ($name in @('a', 'b')) { [System.IO.File]::WriteAllBytes((Join-Path -Path $folder -ChildPath $name), [Convert]::FromBase64String(@{ a = 'AAAA'; b = 'aaaa' }[$name])) }
        Test-StartsWith -LogPath (Join-Path -Path $folder -ChildPath 'a') -CopyPath (Join-Path -Path $folder -ChildPath 'b') | Should -BeFalse
    }

    It 'pauses a process and lets it go on (needs Windows: ntdll.dll and ping.exe)' -Tag 'Windows' -Skip:$elsewhere {
        Initialize-Pause
        $info = New-Object System.Diagnostics.ProcessStartInfo
        $info.FileName = Join-Path -Path $env:SystemRoot -ChildPath 'System32\ping.exe'
        $info.Arguments = '-n 120 127.0.0.1'
        $info.UseShellExecute = $false
        $info.CreateNoWindow = $true
        $process = [System.Diagnostics.Process]::Start($info)
        try {
            [PillSnap.Pause]::NtSuspendProcess($process.Handle) | Should -Be 0
            [PillSnap.Pause]::NtResumeProcess($process.Handle) | Should -Be 0
            $process.HasExited | Should -BeFalse
        }
        finally {
            $process.Kill()
        }
    }
}
